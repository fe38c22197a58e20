"""The result's columns against the format of its parts, and against the folders that they go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.job.words import nearest
from batchonnx.parts.kinds import get_kind
from batchonnx.parts.partitions import is_partition_type

_NAMES_APART = ("/", "=", "\\")
"""What a folder's name, or what it says of a column, would be cut at."""


def check_parts(job: JobFile, types: Mapping[str, pa.DataType | None]) -> None:
    """Every column can be written as the job asks. types: result column -> type, None where only a run tells.

    Raises ContractError with all that can't.
    """
    problems = [*_partitions(job, types), *_columns(job, types)]
    if problems:
        raise ContractError(*problems)


def _partitions(job: JobFile, types: Mapping[str, pa.DataType | None]) -> Iterator[Problem]:
    asked, where = job.job.output.partition_by, job.where("output.partition_by")
    for column in asked:
        if column not in types:
            near = nearest(column, list(types))
            facts = {"job": where, "expected": f"one of {', '.join(types)}", "found": column}
            fix = f"write {near}" if near else "name a column of predictions, or one of keep"
            yield Problem(f'no column "{column}" to partition the result by', facts, fix)
        elif column.startswith((".", "_")) or any(mark in column for mark in _NAMES_APART):
            facts = {"job": where, "expected": "a name that a folder can have", "found": column}
            fix = "partition by another column, or give it another name in outputs"
            yield Problem(f"\"{column}\" can't be in a folder's name", facts, fix)
        elif (kind := types[column]) is not None and not is_partition_type(kind):
            facts = {"job": where, "expected": "text, integers, booleans or dates", "found": str(kind)}
            fix = "partition by another column"
            yield Problem(f'the result can\'t be partitioned by "{column}"', facts, fix)
    if asked and {*types} <= {*asked}:
        facts = {
            "job": where,
            "expected": "a column that isn't in the folders' names",
            "found": ", ".join(asked),
        }
        yield Problem("nothing would be left to be written into the files", facts, "leave one of them out")


def _columns(job: JobFile, types: Mapping[str, pa.DataType | None]) -> Iterator[Problem]:
    output = job.job.output
    if output.format in ("parquet", "delta", "iceberg"):
        return  # what Parquet can't hold is told by the contract, tables' types by the table
    kind = get_kind(output.format)
    for column, found in types.items():
        if found is None or column in output.partition_by:
            continue
        misfit = next(iter(kind.misfits(found)), None)
        if misfit is not None:
            facts = {"job": job.where("output.format"), "column": column, "found": str(found)}
            told = "" if misfit == found else f" (its {misfit})"
            fix = "output.format: parquet holds it" + (
                ", and jsonl holds lists" if output.format == "csv" else ""
            )
            fix += (
                "; or leave the column out of keep"
                if column in job.job.keep
                else "; or take one of its values: "
            )
            fix += "" if column in job.job.keep else "outputs with index, argmax or threshold"
            yield Problem(
                f'column "{column}" is {found}, which {output.format} can\'t hold{told}', facts, fix
            )
