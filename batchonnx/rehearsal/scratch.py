"""Where a rehearsal writes: beside the job's output, on the same disk or in the same bucket, never in it.

Whoever rehearses holds a lease on its place, of the kind that a run holds on its output, from before there
is anything in it until it may be removed. So a place whose lease can be had was left by a killed command.
"""

from __future__ import annotations

import glob
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from batchonnx.errors import OutputBusyError
from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.output import Cleared
from batchonnx.ledger.outputs import output_at
from batchonnx.rehearsal.rehearse import remove_abandoned
from batchonnx.storage.plain import open_plain

MARK = "rehearsal"


@contextmanager
def scratch_place(job: JobFile) -> Iterator[str]:
    """A new folder or prefix beside the job's output; all that is in it is removed at the end.

    What killed rehearsals of the same output have left is removed first.
    Raises StorageError, or OSError on a disk.
    """
    is_trusted = job.job.output.single_writer == "trusted"
    output = output_at(job.resolve(job.job.output.path), is_trusted=is_trusted).path
    for _ in remove_leftovers(output, is_trusted=is_trusted):
        pass
    parent, mark = beside(output)
    place = f"{parent}/{mark}{secrets.token_hex(4)}"
    new = [] if "://" in place else [above for above in Path(place).parents if not above.exists()]
    try:
        with _held(place, is_trusted=is_trusted):
            if "://" not in place:
                Path(place).mkdir(parents=True)
            yield place
    finally:
        for folder in new:
            with suppress(OSError):  # something else is in it by now
                folder.rmdir()


def remove_leftovers(output: str, *, is_trusted: bool = False) -> Iterator[Cleared]:
    """Remove what killed rehearsals have left beside an output, as the caller goes on; no living one's place.

    output, is_trusted: as of `output_at`. Raises StorageError, OSError.
    """
    remove_abandoned()
    for place in _places(output):
        with suppress(OutputBusyError):
            size = _size(place)
            with _held(place, is_trusted=is_trusted):
                pass
            yield Cleared("what a killed rehearsal has left", place, size)


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
    return job.having(output=output, gate={}, schedule=None)


def remove_place(place: str) -> None:
    """Whatever a rehearsal has written there. Raises StorageError, OSError."""
    if place.startswith("s3://"):
        folder = ObjectFolder(place)
        folder.abort(list(folder.uploads()))
        folder.delete_below("")
    elif "://" in place:
        filesystem, path = open_plain(place)
        filesystem.invalidate_cache()
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)
    else:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _held(place: str, *, is_trusted: bool) -> Iterator[None]:
    """A place of this process's own, removed at the end. Raises OutputBusyError: it is another's."""
    with ExitStack() as after, output_at(place, is_trusted=is_trusted).hold_lease(on_lost=lambda: None):
        after.callback(remove_place, place)  # once the lease, which in a store lies there, is given back
        yield


def beside(output: str) -> tuple[str, str]:
    """The folder that an output is in, and what the names of its rehearsals' places begin with.

    There is nothing beside a whole bucket: they are in it then, under names that readers of tables leave out.
    """
    scheme, _, rest = output.rpartition("://")
    if scheme and "/" not in rest:
        return output, f".{MARK}-"
    parent, _, name = output.rpartition("/")
    return parent, f".{name}.{MARK}-"


def _places(output: str) -> list[str]:
    """Of rehearsals of this output, whether they live or not."""
    parent, mark = beside(output)
    if "://" not in output:
        return sorted(map(str, Path(output).parent.glob(f"{glob.escape(mark)}*")))
    if output.startswith("s3://"):
        names = {entry.key.partition("/")[0] for entry in ObjectFolder(parent).list(mark)}
    else:
        filesystem, path = open_plain(parent)
        filesystem.invalidate_cache()
        found = filesystem.ls(path, detail=False) if filesystem.exists(path) else []
        names = {str(one).rpartition("/")[2] for one in found}
    return [f"{parent}/{name}" for name in sorted(names) if name.startswith(mark)]


def _size(place: str) -> int | None:
    """Bytes of what is there; None where that would have to be asked for."""
    if "://" in place:
        return None
    return sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
