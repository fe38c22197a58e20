"""Where a drill takes place: a sample of a job, runs of it, and what is seen of their outputs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter, sleep

from batchonnx.errors import BatchonnxError, StorageError
from batchonnx.job.spec import JobFile
from batchonnx.ledger.outputs import output_at
from batchonnx.ledger.records import files_of
from batchonnx.ledger.run_folder import COMMITS, staging_of
from batchonnx.planning.sample import Sample
from batchonnx.proof.verify import verify_result
from batchonnx.rehearsal.chaos.promise import Finding, held
from batchonnx.rehearsal.rehearse import Faults, Rehearsal, RehearsalProcess
from batchonnx.rehearsal.scratch import into

LOOK_S = 0.01
LONGEST_S = 120.0
"""No run of a sample takes so long: one that does hangs."""

Bytes = Mapping[str, str]
"""A file of a result -> the SHA-256 of its bytes."""


@dataclass
class Stage:
    """job: the user's; sample: the rows that are scored again and again; place: the scratch folder.

    work_s: of an undisturbed run, from when the output is its own to its end; scoring_s: from its first rows
    to its last. expected: its bytes. seen: what readers of outputs have seen and shouldn't have.
    """

    job: JobFile
    sample: Sample
    place: str
    draw: Random
    work_s: float = 0.0
    scoring_s: float = 0.0
    expected: Bytes = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def start(self, name: str, faults: Faults | None = None) -> RehearsalProcess:
        """A run into an output of that name."""
        return RehearsalProcess(into(self.job, self.place, name), self.sample, faults)

    def finish(self, name: str, faults: Faults | None = None) -> Rehearsal:
        """Such a run, to its end. Raises DriverError."""
        with self.start(name, faults) as run:
            return run.result(LONGEST_S)

    def wait_for_work(self, run: RehearsalProcess, until: Callable[[], object] = lambda: True) -> bool:
        """Until the output is the run's own, and `until`: whether that came before its end."""
        end = perf_counter() + LONGEST_S
        while run.is_alive and perf_counter() < end:
            if run.committed is not None and until():
                return True
            sleep(LOOK_S)
        return False

    def any_moment(self) -> float:
        """Seconds from when the output is a run's own to some moment before its end."""
        return self.draw.uniform(0.0, self.work_s)

    def any_moment_of_scoring(self) -> float:
        """Seconds from a run's first commit to some moment before its end."""
        return self.draw.uniform(0.0, self.scoring_s)

    def committed(self, name: str, run: RehearsalProcess) -> int:
        """Shards that an unfinished run has committed, at least: by records on a disk, else as it told."""
        if "://" in self.place:
            return run.committed or 0
        records = staging_of(Path(os.path.realpath(f"{self.place}/{name}"))) / COMMITS
        return len(list(records.glob("*.json")))

    def published(self, name: str) -> Bytes | None:
        """The bytes of the result of that name, as its manifest tells; None if there is none."""
        manifest = output_at(f"{self.place}/{name}").read_manifest()
        if manifest is None:
            return None
        return {stored.path: stored.sha256 for commit in manifest.commits for stored in files_of(commit)}

    def look_at_result(self, name: str, after: str) -> Iterator[Finding]:
        """Whether a complete result is what it should be."""
        try:
            proof = verify_result(output_at(f"{self.place}/{name}"))
            told = f"verified: {proof.rows_in:,} rows of each result are accounted for once"
            yield Finding("every row once", "held", told)
        except BatchonnxError as error:
            yield Finding("every row once", "broken", f"{after}: {error.problems[0].title}")
        found = self.published(name) or {}
        differ = sorted(
            path for path in {*found, *self.expected} if found.get(path) != self.expected.get(path)
        )
        told = f"{len(self.expected)} files of each result are an undisturbed run's, byte for byte"
        broken = f"{after}: {len(differ)} of {len(self.expected)} files differ, {', '.join(differ[:3])}"
        yield held("the same bytes", not differ, told, broken)

    def look_for_nothing(self, name: str, after: str) -> Finding:
        """Whether an output shows nothing, or all, when its run has been ended."""
        try:
            found = self.published(name)
        except StorageError as error:
            return Finding("all or nothing", "broken", f"{after}: {error.problems[0].title}")
        is_whole = found is None or found == self.expected
        visible = [] if found is not None or "://" in self.place else self._visible(name)
        told = "nothing of a run was visible before it was published"
        broken = f"{after}: {', '.join(visible[:3]) or 'a part of the result'} can be seen"
        return held("all or nothing", is_whole and not visible, told, broken)

    @contextmanager
    def reader(self, name: str) -> Iterator[None]:
        """Somebody who lists a local output all the time; what must not be there is noted."""
        if "://" in self.place:
            yield
            return
        over = threading.Event()

        def look() -> None:
            parts = {path for path in self.expected if "/" not in path}
            while not over.is_set():
                names = {name.partition("/")[0] for name in self._visible(name)}
                if parts and names and not parts <= names:
                    self.seen.append(f"a reader saw {len(names)} of {len(parts)} parts")
                    return
                over.wait(LOOK_S)

        thread = threading.Thread(target=look, name="reader", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _visible(self, name: str) -> list[str]:
        try:
            return list(output_at(f"{self.place}/{name}").visible())
        except FileNotFoundError:  # the folder has just been exchanged
            return []
