"""What is to be known before any shard is handed out: the batch size, and the canary's predictions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa

from batchonnx.engines.ray.actor import Answer, First
from batchonnx.engines.ray.canary import difference
from batchonnx.engines.ray.handout import HandOut
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model
from batchonnx.scoring.probe import Lesson, untried_rows
from batchonnx.scoring.scorer import Scorer
from batchonnx.scoring.stream import from_bytes, to_bytes

FIRST_SHARDS = 3
"""So many are looked at for rows that pass the filter, before the batch size is settled without any."""


class FirstRows:
    """The lesson of a run's first rows, at which one actor looks.

    model: the driver's own. lesson: what they have taught in a former life of the run. measured: rows in
    one call, as an earlier run has measured. on_lesson: told, once, what is new.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        lesson: Lesson | None,
        measured: int | None,
        on_lesson: Callable[[Lesson], None],
    ) -> None:
        self._plan, self._model, self._measured, self._on_lesson = plan, model, measured, on_lesson
        self._looked_at: set[int] = set()
        self._answer: pa.RecordBatch | None = None
        self.lesson, self.is_settled = lesson, False
        self.canary: bytes | None = None

    @property
    def known_rows(self) -> int | None:
        """Rows in one call, if that is known before anybody has looked."""
        return self.lesson.batch_rows if self.lesson is not None else self._measured

    def next_shard(self, hand: HandOut) -> int | None:
        """A shard at whose first rows to look; None once that is settled, be it without any."""
        shard = hand.first(self._looked_at) if len(self._looked_at) < FIRST_SHARDS else None
        if shard is None:
            self._settle(self.lesson or Lesson(self._blind_rows(), None))
        else:
            self._looked_at.add(shard)
        return shard

    def learn(self, first: First) -> None:
        """Somebody has looked; if no row passes the filter there, another shard is to be looked at."""
        if first.lesson is None:
            return
        lesson = self.lesson or first.lesson
        if first.rows is not None:
            self._set_canary(from_bytes(first.rows), lesson)
        self._settle(lesson)

    def difference(self, answer: Answer) -> str | None:
        """How an actor's predictions for the canary differ from this machine's."""
        if self._answer is None or answer.answer is None:
            return None
        return difference(self._answer, from_bytes(answer.answer))

    def _settle(self, lesson: Lesson) -> None:
        self.is_settled = True
        if self.lesson is None:
            self.lesson = lesson
            self._on_lesson(lesson)

    def _blind_rows(self) -> int:
        asked = self._plan.job.job.engine.batch_rows
        return self._plan.fixed_batch or (
            asked if asked != "auto" else self._measured or untried_rows(self._plan)
        )

    def _set_canary(self, rows: pa.RecordBatch, lesson: Lesson) -> None:
        """Rows that the driver can score: a bad one among them tells nothing of a worker.

        One by one only where that is needed: nobody is told of progress meanwhile.
        """
        if not self._plan.device.is_cpu or not rows.num_rows:
            return  # on a device, the driver's CPU finds other last digits than the workers
        scorer = Scorer(self._plan, self._model, lesson.batch_rows)
        with suppress(Exception):
            self._answer, self.canary = scorer.attempt(rows), to_bytes(rows)
            return
        good = []
        for row in range(rows.num_rows):
            with suppress(Exception):  # whatever a bad row causes; a worker will tell of it
                scorer.attempt(rows.slice(row, 1))
                good.append(row)
        if not good:
            return
        kept = rows.take(pa.array(good))
        with suppress(Exception):  # as above: a model that fails on a batch but on none of its rows
            self._answer = scorer.attempt(kept)
            self.canary = to_bytes(kept)
