"""The columns of the result's files, where a row may become several lines: one for each element of a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.planning.bindings import OutputBinding

ELEMENT = "element"
"""Of an exploded result: which element of its row a line is, from 0; null for a row without any."""

Column = tuple[str, pa.DataType | None]


def written_columns(keep: Sequence[pa.Field], outputs: Sequence[OutputBinding]) -> list[Column]:
    """Name and type of every column of the files, in order; None where only a first batch tells."""
    columns: list[Column] = [(field.name, field.type) for field in keep]
    if any(binding.explode for binding in outputs):
        columns.append((ELEMENT, pa.int32()))
    for binding in outputs:
        columns += line_columns(binding) if binding.explode else [(binding.name, binding.type)]
    return columns


def line_columns(binding: OutputBinding) -> Iterator[Column]:
    """What an exploded column becomes: its elements, or a column NAME_FIELD for each field of theirs."""
    value = binding.type.value_type if binding.type is not None else None
    if value is not None and pat.is_struct(value):
        yield from ((f"{binding.name}_{field.name}", field.type) for field in value)
    else:
        yield binding.name, value


def check_lines(job: JobFile, keep: Sequence[pa.Field], outputs: Sequence[OutputBinding]) -> None:
    """Exploded columns are lists, and no two columns have one name. Raises ContractError."""
    exploded = [binding for binding in outputs if binding.explode]
    for binding in exploded:
        kind = binding.type
        if kind is not None and not (pat.is_list(kind) or pat.is_fixed_size_list(kind)):
            facts = {"job": job.where(f"outputs.{binding.name}.explode"), "found": str(kind)}
            fix = "leave explode out, or make it a list: mask, length, top_k, detect"
            raise ContractError(Problem(f'column "{binding.name}" has no lists to explode', facts, fix))
    names = [name for name, _ in written_columns(keep, outputs)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        facts = {"job": job.where("outputs"), "found": ", ".join(names)}
        fix = "give a column of outputs another name, or leave it out of keep"
        raise ContractError(Problem(f'two columns of the result would be called "{twice}"', facts, fix))
