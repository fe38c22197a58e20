"""A run of a sample in a process of its own, seen from outside: begun, waited for or killed, and measured."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from batchonnx.errors import DriverError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.ledger.process import is_dead, this_process
from batchonnx.planning.sample import Sample
from batchonnx.scoring.progress import RunSummary

MODULE = "batchonnx.rehearsal.process"
ASKED, TOLD, SAID, DONE = "asked.json", "told.json", "said.txt", "done.txt"
"""What is asked of the process, what it tells at its end, what it prints, how many shards are committed."""
DIED = 3
PREFIX = "batchonnx-rehearsal-"
"""Of the folders in which these are, among the machine's temporary files."""


@dataclass(frozen=True)
class Faults:
    """Requests of the driver's own process that fail. share: of all; seed: which, and how."""

    share: float
    seed: int = 0


@dataclass(frozen=True)
class Watched:
    """What a process sees of its own run.

    rows, shards: of the sample; rows None where only reading tells. base_bytes: its memory when plan and
    model were there. peak_bytes: the most there was. owned_s: from the process's start until the output was
    its own; None if the result was there already. trace: seconds since the process's start and rows read by
    then, from time to time.
    """

    rows: int | None
    shards: int
    base_bytes: int
    peak_bytes: int
    owned_s: float | None
    trace: Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Rehearsal:
    """One run of a sample. wall_s: from the process's start to its end. cpu_s: of its threads."""

    summary: RunSummary
    watched: Watched
    wall_s: float
    cpu_s: float


class RehearsalProcess:
    """A run that is under way. As a context it is killed, if it lives, and leaves nothing but its output."""

    def __init__(self, job: JobFile, sample: Sample, faults: Faults | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._began = perf_counter()
        asked = {
            "job": job.job.model_dump(mode="json", by_alias=True, exclude_none=True),
            "folder": str(job.folder),
            "sample": asdict(sample),
            "began": self._began,
            "asker": this_process(),
            "faults": asdict(faults) if faults is not None else None,
        }
        (self._folder / ASKED).write_text(json.dumps(asked))
        command = [sys.executable, "-m", MODULE, str(self._folder)]
        with (self._folder / SAID).open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for who asked; this one is ended by `__exit__`
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of the driver."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def committed(self) -> int | None:
        """Shards that were committed a moment ago; None as long as the output isn't the run's own."""
        with suppress(OSError, ValueError):
            return int((self._folder / DONE).read_text())
        return None

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def terminate(self) -> None:
        """`kill`: it is to end cleanly."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, as `batchonnx run` would have it; below zero: the signal that has ended it.

        timeout_s: after so long it is killed.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def result(self, timeout_s: float | None = None) -> Rehearsal:
        """Wait for it. Raises DriverError with whatever has ended the run."""
        usage_before = os.times()
        code = self.wait(timeout_s)
        wall_s = perf_counter() - self._began
        usage = os.times()
        told: dict[str, Any] = {}
        if (self._folder / TOLD).exists():
            told = json.loads((self._folder / TOLD).read_text())
        if code != 0:
            said = (self._folder / SAID).read_text(errors="replace")
            raise DriverError(code if code > 0 else DIED, *_problems(told, code, said))
        known = {field.name for field in fields(RunSummary)}
        found = {key: value for key, value in told["summary"].items() if key in known and key != "devices"}
        summary = RunSummary(**(found | {"notes": tuple(found["notes"])}))
        cpu_s = (
            usage.children_user
            + usage.children_system
            - usage_before.children_user
            - usage_before.children_system
        )
        return Rehearsal(summary, Watched(**told["watched"]), wall_s, cpu_s)


def remove_abandoned() -> None:
    """The folders of processes whose asker was killed, and they with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError, KeyError):
            if is_dead(json.loads((folder / ASKED).read_text())["asker"]):
                shutil.rmtree(folder, ignore_errors=True)


def rehearse(job: JobFile, sample: Sample) -> Rehearsal:
    """Run a sample of the job to its end, into the job's output. Raises DriverError."""
    with RehearsalProcess(job, sample) as process:
        return process.result()


def _problems(told: Mapping[str, Any], code: int, errors: str) -> list[Problem]:
    problems = [
        Problem(found["title"], found.get("facts", {}), found.get("fix", ""))
        for found in told.get("problems", ())
    ]
    if problems:
        return problems
    said = errors.strip().splitlines()[-1:] or ["nothing"]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    facts = {"found": f"{how}; it said: {said[0][:300]}"}
    fix = "run the job itself: what ends this ends that, and says more"
    return [Problem("the process that tried the job has died", facts, fix)]
