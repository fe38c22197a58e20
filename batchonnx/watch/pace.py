"""How fast a job goes now, what its workers are busy with, and when it will be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from batchonnx.scoring.progress import STAGES, Progress, slowest_stage

RECENT_S = 3.0
"""What `now` means."""

LEAST_STEPS = 3
"""Rows come in steps, a batch of a slow model or a chunk of a quick one: a rate is over so many at least."""

ETA_SHARE, ETA_MOST_S = 0.25, 60.0
"""What is left will go as the last quarter went, or the last minute: jobs speed up, or slow down for good."""


LEAST_SHARE = 0.05
"""With less, as while the batch size is measured, no stage has held anybody back yet."""


@dataclass(frozen=True)
class _Moment:
    """part: of all that is to be done, what is; 0 to 1."""

    elapsed_s: float
    rows: int
    part: float
    busy_s: Mapping[str, float]


class Pace:
    """What a run's last moments tell; note each moment once, in their order.

    rate: rows/s now; mean: since the run began. eta_s: seconds until the last row; None where nothing tells
    yet. shares: stage -> share of the workers' time that goes there now, 0 to 1. slowest: the stage that
    holds workers back now, if one does; see `slowest_stage`.
    """

    def __init__(self) -> None:
        self._steps: deque[_Moment] = deque()
        self.rate = self.mean = 0.0
        self.eta_s: float | None = None
        self.shares: Mapping[str, float] = {}
        self.slowest: str | None = None

    def note(self, progress: Progress) -> None:
        """Take a moment of the run into account."""
        now = _Moment(progress.elapsed_s, progress.rows_in, _part_done(progress), dict(progress.busy_s))
        if not self._steps:
            # What came before the first moment that was told of is as much part of the pace.
            begun = progress.rows_before / progress.rows_total if progress.rows_total else 0.0
            self._steps.append(_Moment(0.0, 0, begun, {}))
        if now.rows > self._steps[-1].rows:
            self._steps.append(now)
        while len(self._steps) > LEAST_STEPS + 1 and now.elapsed_s - self._steps[1].elapsed_s >= ETA_MOST_S:
            self._steps.popleft()
        self.mean = now.rows / max(now.elapsed_s, 1e-9)
        then, span_s = self._window(now, RECENT_S)
        self.rate = (self._steps[-1].rows - then.rows) / span_s
        self.eta_s = self._eta(now)
        spent = {stage: now.busy_s.get(stage, 0.0) - then.busy_s.get(stage, 0.0) for stage in STAGES}
        time_s = max(now.elapsed_s - then.elapsed_s, 1e-9) * max(1, progress.workers)
        self.shares = {stage: min(1.0, max(0.0, seconds) / time_s) for stage, seconds in spent.items()}
        slowest = slowest_stage(spent, reads_ahead=progress.reads_ahead)
        self.slowest = slowest if slowest is not None and self.shares[slowest] >= LEAST_SHARE else None

    def _window(self, now: _Moment, least_s: float) -> tuple[_Moment, float]:
        """The moment that a window begins with, at least so long ago and so many steps; and how long what was
        done since has taken: until the last step, or until now once the next one is late.
        """
        steps = list(self._steps)
        begins = (
            first for first in reversed(steps[1:-LEAST_STEPS]) if now.elapsed_s - first.elapsed_s >= least_s
        )
        then, last = next(begins, steps[0]), steps[-1]
        done_s = last.elapsed_s - then.elapsed_s
        is_late = now.elapsed_s - last.elapsed_s > 2 * done_s / LEAST_STEPS
        return then, max(now.elapsed_s - then.elapsed_s if is_late else done_s, 1e-9)

    def _eta(self, now: _Moment) -> float | None:
        last = self._steps[-1]
        if now.part >= 1:
            return 0.0
        then, span_s = self._window(now, min(max(RECENT_S, ETA_SHARE * now.elapsed_s), ETA_MOST_S))
        if last.part <= then.part:
            return None
        return max(0.0, (1 - last.part) * span_s / (last.part - then.part) - (now.elapsed_s - last.elapsed_s))


def _part_done(progress: Progress) -> float:
    """By rows; by shards where only reading tells how many rows there are."""
    if progress.rows_total is not None:
        return progress.rows_done / progress.rows_total if progress.rows_total else 1.0
    return progress.shards / progress.shards_total if progress.shards_total else 1.0
