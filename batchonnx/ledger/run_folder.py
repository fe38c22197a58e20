"""Where a run grows unseen: a hidden sibling of the output, so that publishing is one rename.

    .NAME.batchonnx/part-00000.parquet          parts that count
    .NAME.batchonnx/_batchonnx/plan.json        what the run set out to do
    .NAME.batchonnx/_batchonnx/commits/         a record for each part that counts
    .NAME.batchonnx/_batchonnx/quarantine/      rows that couldn't be scored
    .NAME.batchonnx/_batchonnx/attempts/        parts being written

Whoever calls a function of this module holds the output's lease.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batchonnx.errors import ChangedError, Problem, StorageError
from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.durable import create_file, replace_file, sync_folder
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, StoredFile, read_record, to_bytes
from batchonnx.planning.identity import differences

RECORDS = "_batchonnx"
PLAN, MANIFEST, SUCCESS = f"{RECORDS}/plan.json", f"{RECORDS}/manifest.json", "_SUCCESS"
COMMITS, ATTEMPTS, QUARANTINE = f"{RECORDS}/commits", f"{RECORDS}/attempts", f"{RECORDS}/quarantine"
SHOWN = 10


@dataclass(frozen=True)
class RunFolder:
    """An unfinished run. commits: shard -> what counts already, from this run's earlier lives."""

    path: Path
    plan: PlanRecord
    commits: Mapping[int, Commit]


def staging_of(output: Path) -> Path:
    """The hidden sibling in which a run of this output grows."""
    return output.with_name(f".{output.name}.batchonnx")


def open_run(output: Path, plan: PlanRecord, *, fresh: bool = False) -> RunFolder:
    """Go on with the output's unfinished run, or begin one.

    fresh: begin one whatever is there. Raises ChangedError with the differences if the unfinished
    run is another one's, StorageError.
    """
    folder = staging_of(output)
    with _disk_errors(folder):
        if fresh or not (folder / PLAN).exists() or _is_former_result(folder, output):
            shutil.rmtree(folder, ignore_errors=True)
            return _begin(folder, plan)
        begun = read_record(folder / PLAN, PlanRecord)
        _require_same(begun, plan, folder)
        return RunFolder(folder, begun, _settle(folder))


def commit(run: Path, record: Commit) -> Commit:
    """Make a shard's files count, unless another attempt's count already; gives the one that counts.

    The files lie where `attempt_files` says, and are on the disk. Raises StorageError.
    """
    with _disk_errors(run):
        path = _commit_path(run, record.part)
        if create_file(path, to_bytes(record)):
            _place(run, record)
            return record
        for _, staged in attempt_files(run, record):
            staged.unlink(missing_ok=True)
        return read_record(path, Commit)


def attempt_files(run: Path, record: Commit) -> Iterator[tuple[StoredFile, Path]]:
    """A commit's files, and where they lie before they count."""
    yield record.part, attempt_path(run, record.attempt)
    if record.quarantine is not None:
        yield record.quarantine, attempt_path(run, record.attempt, "-quarantine")


def attempt_path(run: Path, attempt: str, suffix: str = "") -> Path:
    """Where an attempt's part is written, or its quarantine."""
    return run / ATTEMPTS / f"{attempt}{suffix}.parquet"


def complete(run: Path, manifest: Manifest) -> None:
    """Write the manifest and then `_SUCCESS`: nothing is missing but to publish. Raises StorageError."""
    with _disk_errors(run):
        replace_file(run / MANIFEST, to_bytes(manifest))
        replace_file(run / SUCCESS, b"")
        # The manifest has it all; from here on a resumed run reads that.
        for name in (COMMITS, ATTEMPTS):
            shutil.rmtree(run / name, ignore_errors=True)
        with suppress(OSError):
            (run / QUARANTINE).rmdir()  # if nothing is in it


def discard(run: Path) -> None:
    """Remove what a run left that isn't worth keeping."""
    shutil.rmtree(run, ignore_errors=True)


def read_manifest(output: Path) -> Manifest | None:
    """The manifest of a published result; None where there is no result. Raises StorageError."""
    try:
        return read_record(output / MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None


def holds_files(output: Path, manifest: Manifest) -> bool:
    """Whether every file of a manifest is there with its size."""
    return all(
        _has_size(output / stored.path, stored)
        for record in manifest.commits
        for stored in (record.part, record.quarantine)
        if stored is not None
    )


def _begin(folder: Path, plan: PlanRecord) -> RunFolder:
    for name in (COMMITS, ATTEMPTS, QUARANTINE):
        (folder / name).mkdir(parents=True)
    sync_folder(folder.parent)
    replace_file(folder / PLAN, to_bytes(plan))
    return RunFolder(folder, plan, {})


def _require_same(begun: PlanRecord, plan: PlanRecord, folder: Path) -> None:
    changed = list(differences(begun.identity, plan.identity))
    if not changed:
        return
    title = "the unfinished run of this output was another one"
    fix = "undo the change to go on with it, or start over with --fresh"
    facts = {"run": f"{folder}, begun {begun.created}"}
    facts |= {name: f"{old} -> {new}" for name, old, new in changed[:SHOWN]}
    if len(changed) > SHOWN:
        facts["and"] = f"{len(changed) - SHOWN} more differences"
    raise ChangedError(Problem(title, facts, fix))


def _is_former_result(folder: Path, output: Path) -> bool:
    """Whether a run died after it had published in exchange for this folder."""
    manifest = read_manifest(output)
    if manifest is None or not (folder / SUCCESS).exists():
        return False
    return manifest.replaces == read_record(folder / PLAN, PlanRecord).run


def _settle(folder: Path) -> dict[int, Commit]:
    """The commits whose files are there; whatever a crash left besides is removed."""
    if (folder / MANIFEST).exists():
        records = read_record(folder / MANIFEST, Manifest).commits
    else:
        for name in (COMMITS, ATTEMPTS, QUARANTINE):
            (folder / name).mkdir(exist_ok=True)
        records = tuple(map(_read_commit, _commit_paths(folder)))
    unplaced = {path.stem for path in (folder / ATTEMPTS).glob("*.parquet")}
    counted = {}
    for record in records:
        if record.attempt in unplaced:
            _place(folder, record)
        stored = [record.part, *([record.quarantine] if record.quarantine else [])]
        if all(_has_size(folder / file.path, file) for file in stored):
            counted[record.shard] = record
        else:
            _commit_path(folder, record.part).unlink(missing_ok=True)
    if len(counted) < len(records):
        (folder / SUCCESS).unlink(missing_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder / ATTEMPTS, ignore_errors=True)
    (folder / ATTEMPTS).mkdir()
    return counted


def _commit_paths(folder: Path) -> Iterator[Path]:
    """Records, without the hidden files of attempts to write one."""
    return (path for path in (folder / COMMITS).iterdir() if not path.name.startswith("."))


def _read_commit(path: Path) -> Commit:
    return read_record(path, Commit)


def _commit_path(run: Path, part: StoredFile) -> Path:
    return run / COMMITS / f"{Path(part.path).stem}.json"


def _place(run: Path, record: Commit) -> None:
    for stored, staged in attempt_files(run, record):
        if staged.exists():
            staged.replace(run / stored.path)
            sync_folder((run / stored.path).parent)


def _has_size(path: Path, stored: StoredFile) -> bool:
    try:
        return path.stat().st_size == stored.bytes
    except OSError:
        return False


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise disk_error(error, path) from error
