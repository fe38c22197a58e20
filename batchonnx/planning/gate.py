"""The gate's columns and checks against the result's schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.job.words import nearest

_OF_NUMBERS = ("min", "max", "max_psi")


def check_gate(job: JobFile, types: Mapping[str, pa.DataType | None]) -> None:
    """Every check of the gate can be made. types: result column -> type, None where only a run tells.

    Raises ContractError with all that can't.
    """
    problems = list(_problems(job, types))
    if problems:
        raise ContractError(*problems)


def _problems(job: JobFile, types: Mapping[str, pa.DataType | None]) -> Iterator[Problem]:
    for column, check in job.job.gate.items():
        where = job.where(f"gate.{column}")
        if column not in types:
            near = nearest(column, list(types))
            facts = {"job": where, "expected": f"one of {', '.join(types)}", "found": column}
            fix = f"write {near}" if near else "name a column of predictions, or one of keep"
            yield Problem(f'the gate checks a column "{column}", which the result doesn\'t have', facts, fix)
            continue
        arrow_type = types[column]
        if arrow_type is None:
            continue
        if pat.is_nested(arrow_type) or isinstance(arrow_type, pa.BaseExtensionType):
            facts = {"job": where, "expected": "a column with one value for a row", "found": str(arrow_type)}
            fix = "make a column of one of its values: outputs with index, argmax or threshold"
            yield Problem(f'the gate can\'t check "{column}"', facts, fix)
            continue
        is_number = pat.is_integer(arrow_type) or pat.is_floating(arrow_type)
        asked = [name for name in _OF_NUMBERS if getattr(check, name) is not None]
        if asked and not is_number:
            facts = {"job": where, "expected": "a column of numbers", "found": str(arrow_type)}
            fix = f"leave {', '.join(asked)} out; labels have max_null, varies and max_shift"
            yield Problem(
                f'the gate wants {", ".join(asked)} of "{column}", which holds no numbers', facts, fix
            )
