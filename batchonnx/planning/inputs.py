"""A job's input: files that are listed by path, or what a table holds at a version."""

from __future__ import annotations

from pathlib import Path

from batchonnx.errors import InputError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.planning.listing import Listing, list_input, list_table


def list_job(job: JobFile) -> tuple[JobFile, Listing]:
    """The input as it is now, and the job with the table's version that this is: it means the same for good.

    Raises InputError, StorageError, DependencyError.
    """
    wanted = job.job.input
    if wanted.format == "delta" or wanted.format == "iceberg":
        from batchonnx.tables.table import read_snapshot

        where = wanted.table.name if wanted.table is not None else job.resolve(str(wanted.path))
        listing = list_table(read_snapshot(job), where)
        pinned = wanted.model_copy(update={"version": listing.version})
        return job.having(input=pinned), listing
    paths = [
        job.resolve(path) for path in ([wanted.path] if isinstance(wanted.path, str) else wanted.path or [])
    ]
    if wanted.format is None and (table := next(filter(_is_delta_table, paths), None)) is not None:
        facts = {"job": job.where("input.path"), "path": table, "found": "a Delta log"}
        fix = (
            "say input.format: delta; or parquet, to score every file, whether the table still has it or not"
        )
        raise InputError(Problem("the input is a Delta table", facts, fix))
    return job, list_input(paths, wanted.format)


def _is_delta_table(path: str) -> bool:
    """Whether a local folder has a log: its files alone don't tell which of them count."""
    return "://" not in path and (Path(path) / "_delta_log").is_dir()
