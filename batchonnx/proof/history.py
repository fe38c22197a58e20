"""Which runs there were: at an output, or at all outputs below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from batchonnx.errors import Problem, StorageError
from batchonnx.ledger.outputs import output_at
from batchonnx.ledger.records import Manifest, PastRun
from batchonnx.ledger.run_folder import MANIFEST, RECORDS

State = Literal["published", "replaced", "unfinished"]


@dataclass(frozen=True)
class ListedRun:
    """A run. completed: when its last shard was; of an unfinished one, empty.

    state: replaced by a later one at the same output; unfinished: it goes on with the command that began it.
    Counts and elapsed_s are None where nothing tells.
    """

    output: str
    run: str
    state: State
    completed: str
    version: str
    model: str
    fingerprint: str
    rows_in: int | None
    predicted: int | None
    quarantined: int | None
    filtered: int | None
    elapsed_s: float | None


def list_runs(place: str) -> list[ListedRun]:
    """The runs at an output, or at all outputs below a folder: by output, the latest last.

    place: absolute path or URL. Raises StorageError, also if there is none.
    """
    found = [run for output in _outputs(place) for run in _runs(output)]
    if not found:
        fix = "name the output of a job, or a folder above some"
        raise StorageError(Problem("there are no results", {"folder": place}, fix))
    return found


def _runs(path: str) -> Iterator[ListedRun]:
    output = output_at(path)
    manifest = output.read_manifest()
    if manifest is not None:
        yield from (_listed(path, "replaced", past) for past in manifest.history)
        yield _listed(path, "published", as_past(manifest, output.read_plan(manifest).version))
    if (unfinished := output.unfinished()) is not None:
        run = unfinished.rstrip("/").rpartition("/")[2] if "://" in path else ""
        yield ListedRun(path, run, "unfinished", "", "", "", "", None, None, None, None, None)


def as_past(manifest: Manifest, version: str) -> PastRun:
    """What is remembered of a published run. version: of the batchonnx that planned it."""
    return PastRun(
        run=manifest.run,
        version=version,
        completed=manifest.completed,
        fingerprint=manifest.fingerprint,
        model=manifest.model,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
        elapsed_s=manifest.work.elapsed_s if manifest.work is not None else None,
    )


def _listed(path: str, state: State, run: PastRun) -> ListedRun:
    return ListedRun(output=path, state=state, **vars(run))


def _outputs(place: str) -> list[str]:
    """Paths or URLs of outputs at or below a place, in their order."""
    if "://" in place and not place.startswith("file://"):
        return sorted(_in_store(place.rstrip("/")))
    folder = Path(place.removeprefix("file://"))
    return sorted(map(str, _in_folder(folder)))


def _in_folder(folder: Path) -> set[Path]:
    found = set()
    beside = folder.with_name(f".{folder.name}.batchonnx")
    if beside.is_dir():
        found.add(folder)
    for top, names, _ in os.walk(folder):
        here = Path(top)
        if (here / MANIFEST).exists():
            found.add(here)
        for name in names:
            if name.startswith(".") and name.endswith(".batchonnx") and (here / name / RECORDS).is_dir():
                found.add(here / name[1 : -len(".batchonnx")])
        names[:] = [name for name in names if not name.startswith(".") and name != RECORDS]
    return found


def _in_store(url: str) -> set[str]:
    from batchonnx.ledger.object_folder import ObjectFolder
    from batchonnx.ledger.object_run import UNFINISHED
    from batchonnx.ledger.plain import PlainFolder

    folder = ObjectFolder(url) if url.startswith("s3://") else PlainFolder(url)
    found = set()
    for entry in folder.list():
        for mark in (MANIFEST, UNFINISHED):
            if entry.key == mark:
                found.add(url)
            elif entry.key.endswith(f"/{mark}"):
                found.add(f"{url}/{entry.key[: -len(mark) - 1]}")
    return found
