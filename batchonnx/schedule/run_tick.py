"""One tick: its job is run, unless its result is there; within its deadline, and until it is replaced."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from batchonnx.driver.run import RunOptions, run_job
from batchonnx.engines.events import OnProgress, only_progress
from batchonnx.errors import BatchonnxError, Interrupted
from batchonnx.schedule.calendar import Tick
from batchonnx.schedule.clock import Clock
from batchonnx.schedule.scheduled import Scheduled

Outcome = Literal["published", "already", "failed", "overdue", "replaced", "skipped", "stopped"]


@dataclass(frozen=True)
class TickResult:
    """What became of a tick.

    date: its logical date. at: when it was due, UTC, as ISO 8601. predicted: rows; None unless it was
    published now. problem: why not, in the words of the error. exit_code: of the tick alone.
    """

    date: str
    at: str
    outcome: Outcome
    output: str
    predicted: int | None = None
    problem: str | None = None
    exit_code: int = 0


@dataclass(frozen=True)
class Limit:
    """When a run has to end, and what it is then called."""

    at: datetime
    outcome: Literal["overdue", "replaced"]


class TickStop(threading.Event):
    """Set by hand, by the caller's own event, or by the clock: workers ask before each batch."""

    def __init__(self, outer: threading.Event, clock: Clock, limit: Limit | None) -> None:
        super().__init__()
        self._outer, self._clock, self._limit = outer, clock, limit

    def is_set(self) -> bool:
        """Whether the run is to end."""
        return super().is_set() or self._outer.is_set() or self.is_over()

    def is_over(self) -> bool:
        """Whether its time is."""
        return self._limit is not None and self._clock.now() >= self._limit.at


def run_tick(
    scheduled: Scheduled,
    tick: Tick,
    *,
    clock: Clock,
    limit: Limit | None,
    stop: threading.Event,
    on_progress: OnProgress | None = None,
) -> TickResult:
    """Score and publish what is missing of a tick; whatever goes wrong with it is its result.

    A published result is never replaced, whatever the job's own `overwrite` says: so no tick counts twice.
    """
    output = scheduled.output_of(tick).path
    ended = TickStop(stop, clock, limit)

    def result(
        outcome: Outcome, predicted: int | None = None, error: BatchonnxError | None = None
    ) -> TickResult:
        told = "; ".join(problem.title for problem in error.problems) if error is not None else None
        code = error.exit_code if error is not None else 0
        return TickResult(tick.date, tick.at.isoformat(), outcome, output, predicted, told, code)

    try:
        if scheduled.is_published(tick):
            return result("already")
        summary = run_job(
            scheduled.job_of(tick), RunOptions(overwrite=False), ended, only_progress(on_progress)
        )
    except Interrupted as error:
        if stop.is_set():
            return result("stopped", error=error)
        if limit is not None and ended.is_over():
            return result(limit.outcome)
        return result("failed", error=error)
    except BatchonnxError as error:
        return result("failed", error=error)
    return result("published", summary.predicted) if summary.is_new else result("already")
