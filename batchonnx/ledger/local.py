"""Results in local folders: a run grows in a hidden sibling and becomes the output by one rename."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchonnx.errors import Problem, StorageError
from batchonnx.ledger import run_folder
from batchonnx.ledger.crew import Crew, call_crew, outlast_crew, require_no_crew
from batchonnx.ledger.lease import hold_lease
from batchonnx.ledger.output import NONE, Cleared, Kept, Run, Scoring, Staged, Ticket
from batchonnx.ledger.publish import check_output, publish, replaced_beside, settle_former
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, Probe, read_record
from batchonnx.ledger.run_folder import PLAN, SUCCESS, RunFolder, staging_of
from batchonnx.ledger.staged_file import StagedFile
from batchonnx.ledger.suspects import clear_all_started, mark_started
from batchonnx.parts.read import read_file

ASIDE = (".", "_")
"""Names that readers of a folder of Parquet files leave out."""

END_S = 10.0
"""How long workers that were ended may take to be gone; the run's next life waits for longer."""


class LocalScoring:
    """A run's hidden folder, for those who score; see `output.Scoring`."""

    def __init__(self, folder: Path, suspects: Container[int]) -> None:
        self._path = folder
        self.where, self.keeps_measured = str(folder), False
        self._suspects = suspects

    @property
    def suspects(self) -> Container[int]:
        """As given."""
        return self._suspects

    def start(self, shard: int, part: str) -> None:
        """A mark that isn't synced: it outlives the process, which is enough."""
        mark_started(self._path, shard)

    def end(self) -> None:
        """Nothing: the marks of other processes aren't this one's to remove."""

    def stage(self, attempt: str, kind: str, path: str) -> Staged:
        """A file among the attempts."""
        return StagedFile(run_folder.attempt_path(self._path, attempt, kind), path)

    def commit(self, record: Commit) -> Commit:
        """By a record that is created once."""
        return run_folder.commit(self._path, record)


@dataclass(frozen=True)
class LocalTicket:
    """See `output.Ticket`."""

    folder: Path
    crew: Crew

    def enter(self, suspects: Container[int]) -> Scoring:
        """The lock is held until the process ends, with the handle."""
        self.crew.join()
        return LocalScoring(self.folder, suspects)


class LocalRun:
    """A run in its hidden folder; see `output.Run`."""

    def __init__(self, folder: RunFolder, output: Path) -> None:
        self._folder, self._output = folder, output
        self._scoring = LocalScoring(folder.path, folder.suspects)
        self.where, self.keeps_measured = self._scoring.where, self._scoring.keeps_measured
        self.start, self.stage, self.commit = self._scoring.start, self._scoring.stage, self._scoring.commit
        self.plan, self.commits = folder.plan, folder.commits
        self.suspects, self.probe = folder.suspects, folder.probe

    def ticket(self) -> Ticket:
        """The folder, and a lock that tells of whoever is in it."""
        return LocalTicket(self._folder.path, call_crew(self._output))

    def take_note(self, record: Commit) -> None:
        """Nothing: the worker's record is all there is."""

    def end(self) -> None:
        """Remove all marks; wait for workers of other processes, of which none should be left."""
        outlast_crew(self._output, END_S)
        clear_all_started(self._folder.path)

    def keep_probe(self, probe: Probe) -> None:
        """In a record beside the plan's."""
        run_folder.keep_probe(self._folder.path, probe)

    def read_staged(self, record: Commit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """From the staged files themselves."""
        for part in record.parts:
            with pa.OSFile(str(run_folder.staged_path(self._folder.path, part))) as source:
                yield from read_file(source, self.plan.layout, part.path, columns)

    def complete(self, manifest: Manifest, kept: Kept) -> None:
        """Manifest and `_SUCCESS`, still unseen."""
        run_folder.complete(self._folder.path, manifest, self._output, kept)

    def publish(self, manifest: Manifest, overwrite: bool) -> None:
        """One rename, or an exchange with the former result."""
        publish(self._folder.path, self._output, manifest, overwrite)

    def discard_if_empty(self) -> None:
        """Remove the folder."""
        run_folder.discard_if_empty(self._folder.path, self._output)


class LocalOutput:
    """A folder on a local disk; see `output.Output`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = str(folder)

    def hold_lease(self, on_lost: Callable[[], None]) -> AbstractContextManager[None]:
        """A kernel lock, and a beat for other machines."""
        return hold_lease(self._folder, on_lost)

    def settle(self) -> None:
        """Undo half an exchange; remove a former result that was left behind."""
        settle_former(self._folder)

    def check(self, overwrite: bool) -> None:
        """Only a former result may be replaced."""
        check_output(self._folder, overwrite)

    def read_manifest(self) -> Manifest | None:
        """None if the folder isn't there, too."""
        return run_folder.read_manifest(self._folder)

    def read_plan(self, manifest: Manifest) -> PlanRecord:
        """The record beside the manifest."""
        try:
            return read_record(self._folder / PLAN, PlanRecord)
        except FileNotFoundError as error:
            facts = {"record": str(self._folder / PLAN), "found": "no such file"}
            fix = "restore the file, or score again: run with --fresh"
            raise StorageError(Problem("the result's plan is gone", facts, fix)) from error

    def holds(self, record: Commit) -> bool:
        """By the files' sizes."""
        return run_folder.holds_files(self._folder, record)

    def adopt(self, record: Commit, fingerprint: str) -> Commit:
        """Under a name of the new run: see `run_folder.adopt`."""
        return run_folder.adopt(record, fingerprint)

    def open_run(self, plan: PlanRecord, kept: Mapping[int, Commit] = NONE, *, fresh: bool = False) -> Run:
        """See `run_folder.open_run`."""
        require_no_crew(self._folder)
        return LocalRun(run_folder.open_run(self._folder, plan, kept, fresh=fresh), self._folder)

    def waiting(self) -> tuple[Run, Manifest] | None:
        """A run with its `_SUCCESS`."""
        manifest = run_folder.waiting_manifest(self._folder)
        if manifest is None:
            return None
        staging = staging_of(self._folder)
        plan = read_record(staging / PLAN, PlanRecord)
        return LocalRun(RunFolder(staging, plan, NONE), self._folder), manifest

    def unfinished(self) -> str | None:
        """The hidden sibling."""
        staging = staging_of(self._folder)
        return str(staging) if staging.exists() else None

    def open(self, path: str) -> pa.NativeFile:
        """Raises FileNotFoundError, OSError."""
        return pa.OSFile(str(self._folder / path))

    def is_marked(self) -> bool:
        """By the file's being there."""
        return (self._folder / SUCCESS).exists()

    def visible(self) -> Iterator[str]:
        """Files without a folder or name that begins with a dot or an underscore; and empty folders."""
        yield from sorted(_visible(self._folder, "")) if self._folder.is_dir() else ()

    def clean(self) -> Iterator[Cleared]:
        """What `settle` removes; a run that can go on is kept."""
        replaced = [
            Cleared("what was replaced", str(former), _size(former))
            for former in replaced_beside(self._folder)
        ]
        self.settle()
        yield from replaced


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _visible(folder: Path, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.startswith(ASIDE):
            continue
        if entry.is_dir():
            inside = list(_visible(entry, f"{prefix}{entry.name}/"))
            yield from inside or [f"{prefix}{entry.name}"]
        else:
            yield f"{prefix}{entry.name}"
