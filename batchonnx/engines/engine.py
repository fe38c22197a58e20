"""What a driver asks of an engine, wherever its workers live."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from batchonnx.engines.events import Tell
from batchonnx.errors import Interrupted, Problem
from batchonnx.ledger.records import Commit
from batchonnx.scoring.probe import Lesson
from batchonnx.scoring.progress import DeviceUse


@dataclass(frozen=True)
class Phases:
    """What comes before scoring where workers are processes of their own; None where they aren't.

    cluster_s: from the run's start until its cluster could be used. actors_s: from then until the first
    actor was there. start_s: from the run's start until the first worker could be given shards.
    scoring_s: from then until the last commit.
    """

    cluster_s: float | None = None
    actors_s: float | None = None
    start_s: float | None = None
    scoring_s: float | None = None


class Engine(Protocol):
    """Scores a plan's open shards, once.

    threads: of each worker's session. apart: shards that were scored in a process of their own. lost:
    workers that died. copied: shards that were given to a second worker. notes: what the user should know.
    """

    name: str
    threads: int

    @property
    def workers(self) -> int:
        """The most there were at the same time."""
        ...

    def run(
        self,
        stop: threading.Event,
        drain: threading.Event,
        tell: Tell | None,
    ) -> None:
        """Score every open shard; `tell` is called from this thread, about five times a second.

        Raises the first error of any worker, after all have ended; Interrupted once `stop` is set, or, where
        shards are left, once `drain` is set and those in work are done.
        """
        ...

    @property
    def commits(self) -> list[Commit]:
        """Of all shards that are done, in former lives of the run or now."""
        ...

    @property
    def lesson(self) -> Lesson | None:
        """What the first rows taught; None if none had to be scored."""
        ...

    @property
    def busy_s(self) -> Mapping[str, float]:
        """Stage -> seconds, summed over all workers."""
        ...

    @property
    def calls(self) -> int:
        """Calls of the model."""
        ...

    @property
    def halved(self) -> int:
        """Batches that needed too much memory and were scored in pieces."""
        ...

    @property
    def first_at(self) -> float | None:
        """When the first batch was predicted (perf_counter)."""
        ...

    @property
    def apart(self) -> int:
        """Shards scored in a process of their own."""
        ...

    @property
    def lost(self) -> int:
        """Workers that died."""
        ...

    @property
    def copied(self) -> int:
        """Shards that a second worker was given."""
        ...

    @property
    def phases(self) -> Phases:
        """How long it took until workers were ready, and to score."""
        ...

    @property
    def retries(self) -> int:
        """Requests to a store that workers had to send again, as far as was told."""
        ...

    @property
    def devices(self) -> tuple[DeviceUse, ...]:
        """How the devices of this machine were used; nothing on the CPU, or elsewhere."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        ...


def interrupted(done: int, total: int) -> Interrupted:
    """A run was ended early. done, total: shards."""
    facts = {"kept": f"{done} of {total} shards"}
    fix = "run the same command again: it goes on where it stopped"
    return Interrupted(Problem("interrupted: nothing was published", facts, fix))
