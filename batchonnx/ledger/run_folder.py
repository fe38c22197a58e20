"""Where a run grows unseen: a hidden sibling of the output, so that publishing is one rename.

    .NAME.batchonnx/part-000000-3f9a1c07.parquet.staged   parts that count
    .NAME.batchonnx/_batchonnx/plan.json                  what the run set out to do
    .NAME.batchonnx/_batchonnx/probe.json                 what its first rows taught
    .NAME.batchonnx/_batchonnx/commits/                   a record for each part that counts
    .NAME.batchonnx/_batchonnx/quarantine/                rows that couldn't be scored
    .NAME.batchonnx/_batchonnx/order/                     which folder each row went to, if there are folders
    .NAME.batchonnx/_batchonnx/attempts/                  parts being written
    .NAME.batchonnx/_batchonnx/started/                   a mark for each shard being scored

No name ends in `.parquet` until the run is published: DuckDB's `*` and `**`, over the output's
parent, look into hidden folders too.

Whoever calls a function of this module holds the output's lease.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from batchonnx.errors import ChangedError, Problem, StorageError
from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.durable import create_file, remove_staged, replace_file, sync_file, sync_folder
from batchonnx.ledger.records import (
    Commit,
    Manifest,
    PlanRecord,
    Probe,
    StoredFile,
    files_of,
    read_record,
    to_bytes,
)
from batchonnx.ledger.suspects import DEATHS, STARTED, clear_started, count_deaths
from batchonnx.parts.layout import renamed, stem_of
from batchonnx.planning.identity import differences

RECORDS = "_batchonnx"
PLAN, MANIFEST, SUCCESS = f"{RECORDS}/plan.json", f"{RECORDS}/manifest.json", "_SUCCESS"
PROBE = f"{RECORDS}/probe.json"
COMMITS, ATTEMPTS, QUARANTINE = f"{RECORDS}/commits", f"{RECORDS}/attempts", f"{RECORDS}/quarantine"
ORDER = f"{RECORDS}/order"
STAGED = ".staged"
SHOWN = 10


@dataclass(frozen=True)
class RunFolder:
    """An unfinished run.

    commits: shard -> what counts already, from this run's earlier lives or kept from the run before.
    suspects: shards that saw processes die. probe: what the first rows taught, if that is known.
    """

    path: Path
    plan: PlanRecord
    commits: Mapping[int, Commit]
    suspects: frozenset[int] = frozenset()
    probe: Probe | None = None


def staging_of(output: Path) -> Path:
    """The hidden sibling in which a run of this output grows."""
    return output.with_name(f".{output.name}.batchonnx")


def gone_of(output: Path) -> Path:
    """What is being removed: no run, and no result, any more."""
    return output.with_name(f".{output.name}.batchonnx-gone")


def remove_at_once(folder: Path, output: Path) -> None:
    """Remove a run, or a former result, beside the output. Raises OSError.

    By another name first: whatever a death leaves of it then, nobody takes it for the whole.
    """
    gone = gone_of(output)
    if folder != gone and folder.exists():
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def open_run(
    output: Path, plan: PlanRecord, kept: Mapping[int, Commit] = MappingProxyType({}), *, fresh: bool = False
) -> RunFolder:
    """Go on with the output's unfinished run, or begin one.

    kept: shard -> commits of the published result that the plan takes over as they are.
    fresh: begin one whatever is there. Raises ChangedError with the differences if the unfinished
    run is another one's, StorageError.
    """
    folder = staging_of(output)
    with _disk_errors(folder), _no_collection():
        if fresh or not (folder / PLAN).exists():
            remove_at_once(folder, output)
            _begin(folder, plan)
            return RunFolder(folder, plan, kept)
        begun = read_record(folder / PLAN, PlanRecord)
        require_same(begun, plan, str(folder))
        commits = {**kept, **_settle(folder, kept)}
        probe = read_record(folder / PROBE, Probe) if (folder / PROBE).exists() else None
        return RunFolder(folder, begun, commits, count_deaths(folder), probe)


def adopt(former: Commit, fingerprint: str) -> Commit:
    """A commit of the published result as the run of this fingerprint tells of it: under other names."""

    def called(stored: StoredFile | None) -> StoredFile | None:
        return None if stored is None else replace(stored, path=renamed(stored.path, fingerprint))

    parts = tuple(replace(part, path=renamed(part.path, fingerprint)) for part in former.parts)
    return replace(
        former,
        part=renamed(former.part, fingerprint),
        parts=parts,
        quarantine=called(former.quarantine),
        order=called(former.order),
    )


def quarantine_path(part: str) -> str:
    """Where the bad rows of a part's shard are kept.

    Not named *.parquet: DuckDB's `**` would count it among the predictions.
    """
    return f"{QUARANTINE}/{stem_of(part)}.quarantine"


def order_path(part: str) -> str:
    """Where it is kept which folder each of a part's rows went to."""
    return f"{ORDER}/{stem_of(part)}.order"


def part_kind(number: int) -> str:
    """What an attempt calls the files of its part, by their number."""
    return f"part-{number}" if number else "part"


def keep_probe(run: Path, probe: Probe) -> None:
    """Have the run's next life do as the first rows have taught. Raises StorageError."""
    with _disk_errors(run):
        replace_file(run / PROBE, to_bytes(probe))


def commit(run: Path, record: Commit) -> Commit:
    """Make a shard's files count, unless another attempt's count already; gives the one that counts.

    The files lie where `attempt_files` says, and are on the disk. Raises StorageError.
    """
    with _disk_errors(run):
        path = _commit_path(run, record)
        if create_file(path, to_bytes(record)):
            _place(run, record)
            clear_started(run, record.shard)
            return record
        counting = read_record(path, Commit)
        # Its writer may have died, or be asleep, before it got so far.
        _place(run, counting)
        for _, staged in attempt_files(run, record):
            staged.unlink(missing_ok=True)
        return counting


def attempt_files(run: Path, record: Commit) -> Iterator[tuple[StoredFile, Path]]:
    """A commit's files, and where they lie before they count."""
    for number, part in enumerate(record.parts):
        yield part, attempt_path(run, record.attempt, part_kind(number))
    for kind, stored in (("quarantine", record.quarantine), ("order", record.order)):
        if stored is not None:
            yield stored, attempt_path(run, record.attempt, kind)


def attempt_path(run: Path, attempt: str, kind: str) -> Path:
    """Where an attempt writes a file of its part, its quarantine or its order."""
    return run / ATTEMPTS / f"{attempt}.{kind}"


def staged_path(run: Path, stored: StoredFile) -> Path:
    """Where a file that counts lies until it is published."""
    return run / f"{stored.path}{STAGED}"


def reveal(run: Path, commits: Sequence[Commit]) -> None:
    """Give staged files the names that they are published under. Raises OSError."""
    for record in commits:
        for stored in files_of(record):
            staged = staged_path(run, stored)
            if staged.exists():
                staged.rename(run / stored.path)
    _sync_folders(run, commits)


def complete(run: Path, manifest: Manifest, output: Path, kept: Sequence[tuple[Commit, Commit]] = ()) -> None:
    """Write the manifest and then `_SUCCESS`: nothing is missing but to publish. Raises StorageError.

    kept: what is taken over from the result at `output`, as it is told of there and in this run:
    the files are linked.
    """
    with _disk_errors(run):
        for former, record in kept:
            for source, stored in zip(files_of(former), files_of(record), strict=True):
                _link(output / source.path, staged_path(run, stored))
        _sync_folders(run, manifest.commits)
        replace_file(run / MANIFEST, to_bytes(manifest))
        replace_file(run / SUCCESS, b"")
        # The manifest has it all; from here on a resumed run reads that.
        for name in (COMMITS, ATTEMPTS, STARTED):
            shutil.rmtree(run / name, ignore_errors=True)
        (run / DEATHS).unlink(missing_ok=True)
        with suppress(OSError):
            (run / QUARANTINE).rmdir()  # if nothing is in it


def waiting_manifest(output: Path) -> Manifest | None:
    """The manifest of a complete run that isn't published; None if there is none. Raises StorageError."""
    folder = staging_of(output)
    with _disk_errors(folder):
        return read_manifest(folder) if (folder / SUCCESS).exists() else None


def discard_if_empty(run: Path, output: Path) -> None:
    """Remove what a run left, unless something of it counts."""
    if not any((run / COMMITS).glob("*.json")) and not (run / SUCCESS).exists():
        with suppress(OSError):
            remove_at_once(run, output)


def read_manifest(output: Path) -> Manifest | None:
    """The manifest of a published result; None where there is no result. Raises StorageError."""
    try:
        return read_record(output / MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None


def holds_files(output: Path, record: Commit) -> bool:
    """Whether a published result has every file of a commit, with its size."""
    return all(_has_size(output / stored.path, stored) for stored in files_of(record))


def _begin(folder: Path, plan: PlanRecord) -> None:
    for name in (COMMITS, ATTEMPTS, QUARANTINE, STARTED):
        (folder / name).mkdir(parents=True)
    sync_folder(folder.parent)
    replace_file(folder / PLAN, to_bytes(plan))


def require_same(begun: PlanRecord, plan: PlanRecord, where: str) -> None:
    """Raises ChangedError, with the differences, unless an unfinished run is one of this plan."""
    everything = "the input as a whole"
    changed = [
        *differences(begun.identity, plan.identity),
        *differences({"since run": begun.since or everything}, {"since run": plan.since or everything}),
    ]
    if not changed:
        return
    title = "the unfinished run of this output was another one"
    fix = "undo the change to go on with it, or start over with --fresh"
    facts = {"run": f"{where}, begun {begun.created}"}
    facts |= {name: f"{old} -> {new}" for name, old, new in changed[:SHOWN]}
    if len(changed) > SHOWN:
        facts["and"] = f"{len(changed) - SHOWN} more differences"
    raise ChangedError(Problem(title, facts, fix))


def is_former_result(folder: Path, output: Path) -> bool:
    """Whether a run died after it had published in exchange for this folder."""
    if not (folder / SUCCESS).exists():
        return False
    try:
        manifest = read_manifest(output)
        return manifest is not None and manifest.replaces == read_record(folder / PLAN, PlanRecord).run
    except (StorageError, FileNotFoundError):
        return False  # whoever wrote the one didn't write the other; --fresh replaces both


def _settle(folder: Path, kept: Mapping[int, Commit]) -> dict[int, Commit]:
    """The commits whose files are there; whatever a crash left besides is removed."""
    for name in (COMMITS, ATTEMPTS, QUARANTINE):
        (folder / name).mkdir(exist_ok=True)
    for place in (folder, folder / RECORDS):
        remove_staged(place)
    if (folder / MANIFEST).exists():
        commits = read_record(folder / MANIFEST, Manifest).commits
        _hide(folder, commits)
        records = tuple(record for record in commits if record.shard not in kept)
    else:
        records = tuple(read_record(path, Commit) for path in _commit_paths(folder))
    unplaced = {path.name.split(".")[0] for path in (folder / ATTEMPTS).iterdir()}
    counted = {}
    for record in records:
        if record.attempt in unplaced:
            _place(folder, record)
        if all(_has_size(staged_path(folder, stored), stored) for stored in files_of(record)):
            counted[record.shard] = record
        else:
            _commit_path(folder, record).unlink(missing_ok=True)
    if len(counted) < len(records) and (folder / MANIFEST).exists():
        for record in counted.values():
            create_file(_commit_path(folder, record), to_bytes(record))
        (folder / SUCCESS).unlink(missing_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder / ATTEMPTS, ignore_errors=True)
    (folder / ATTEMPTS).mkdir()
    return counted


def _commit_paths(folder: Path) -> Iterator[str]:
    """Records, without the hidden files of attempts to write one."""
    with os.scandir(folder / COMMITS) as entries:
        yield from (entry.path for entry in entries if not entry.name.startswith("."))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for cycles again and again while objects grow in number; records have none.

    A quarter of the time that 100,000 of them take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _sync_folders(run: Path, commits: Iterable[Commit]) -> None:
    """Every folder that a file of these commits is in, inner ones first."""
    inside = {str(PurePosixPath(stored.path).parent) for record in commits for stored in files_of(record)}
    folders = {
        str(outer) for inner in inside for outer in (PurePosixPath(inner), *PurePosixPath(inner).parents)
    }
    for name in sorted({".", QUARANTINE, *folders}, key=len, reverse=True):
        if (run / name).exists():
            sync_folder(run / name)


def _commit_path(run: Path, record: Commit) -> Path:
    return run / COMMITS / f"{stem_of(record.part)}.json"


def _place(run: Path, record: Commit) -> None:
    """Not synced: what a power cut undoes is placed again, and `complete` syncs all of it at once."""
    for stored, staged in attempt_files(run, record):
        target = staged_path(run, stored)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # it is in its place already
            staged.replace(target)


def _hide(run: Path, commits: Iterable[Commit]) -> None:
    """Undo `reveal`, whose run has died before it was published."""
    for record in commits:
        for stored in files_of(record):
            if (run / stored.path).exists():
                (run / stored.path).rename(staged_path(run, stored))


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        sync_file(target)


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
