"""Where a rehearsal writes: beside the job's output, on the same disk or in the same bucket, never in it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder

MARK = "rehearsal"


@contextmanager
def scratch_place(job: JobFile) -> Iterator[str]:
    """A new folder or prefix beside the job's output; all that is in it is removed at the end.

    Raises StorageError, or OSError on a disk.
    """
    output = job.resolve(job.job.output.path).rstrip("/")
    parent, _, name = output.rpartition("/")
    place = f"{parent}/.{name}.{MARK}-{secrets.token_hex(4)}"
    made = _make_folders(Path(place)) if "://" not in place else []
    try:
        yield place
    finally:
        remove_place(place)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def into(job: JobFile, place: str, name: str) -> JobFile:
    """The same job with its result in `place`, as plain parts, with nobody to be told of it.

    What asks for a former result, or acts on a new one, is left out: gate, table, schedule.
    """
    spec = job.job
    asked = spec.output
    is_table = asked.format in ("delta", "iceberg")
    output = asked.model_copy(
        update={
            "path": f"{place}/{name}",
            "overwrite": False,
            "table": None,
            "format": "parquet" if is_table else asked.format,
        }
    )
    return job.model_copy(
        update={"job": spec.model_copy(update={"output": output, "gate": {}, "schedule": None})}
    )


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder: those above it that weren't there either, the deepest first."""
    new = [above for above in folder.parents if not above.exists()]
    folder.mkdir(parents=True)
    return new


def remove_place(place: str) -> None:
    """Whatever a rehearsal has written there. Raises StorageError."""
    if place.startswith("s3://"):
        folder = ObjectFolder(place)
        folder.abort(list(folder.uploads()))
        folder.delete_below("")
    elif "://" in place:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(place)
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)
    else:
        shutil.rmtree(place, ignore_errors=True)
