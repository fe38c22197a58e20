"""A job's input: files that are listed by path, or what a table holds at a version."""

from __future__ import annotations

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
        return job.model_copy(update={"job": job.job.model_copy(update={"input": pinned})}), listing
    paths = [wanted.path] if isinstance(wanted.path, str) else wanted.path or []
    return job, list_input([job.resolve(path) for path in paths], wanted.format)
