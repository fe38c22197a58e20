"""The first rows, and what they teach: the best batch size, and types that only they show."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter, thread_time

import pyarrow as pa

from batchonnx.planning.bindings import HookFeature, OutputBinding
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.device_probe import best_size
from batchonnx.scoring.known_sizes import keep_size, size_key
from batchonnx.scoring.neighbours import ROWS as NEIGHBOURS
from batchonnx.scoring.neighbours import neighbour_difference
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import read_chunks
from batchonnx.scoring.scorer import Scorer

SIZES = (1, 8, 64, 256, 1024, 4096)
TEXT_SIZES = (16, 64, 256)
"""Of texts, in rows of `lattice.NOMINAL_TOKENS`. The first is taken where calls are long: no transformer was
faster with more at once on a CPU, and 8 or 4 gained nothing."""

LONG_TEXT_CALL_S = 0.02

TRIALS = 2

BUDGET_S = 0.3
"""For all sizes together, by what times the trials. A size is tried only if it can be expected to fit in what
is left."""

SHORTEST_TRIAL_S, LONGEST_TRIAL_S = 0.0005, 0.01
TRIAL_SHARE = 0.0005
"""A size's calls are repeated, twice, for this share of what the whole job may take, between the two: a long
job gets a careful choice, a short one isn't held up."""

LONG_CALL_S = 0.0005
"""Calls shorter than this make threads wait for each other more than a trial shows."""

SHORTEST_TICK_S = 1e-6
"""What a trial takes at least: a thread's clock may be coarser than a call."""

AS_GOOD, NEARLY_AS_GOOD = 0.97, 0.8

UNTYPED_ROWS = 256

PATIENCE = 2
"""Chunks that went well before a batch that was made smaller for want of memory is made larger again."""


CALL_BYTES = 64 << 20
"""What the model gives in one call, at most, where sizes are measured: on the way to the file each worker
holds it a few times."""

UNTRIED_ROWS = 256
"""Rows in one call where measuring might end the process."""


@dataclass(frozen=True)
class Lesson:
    """What the first rows teach.

    batch_rows: rows in one call of the model. neighbour_difference: how much a prediction depends
    on the rows beside it (see `scoring.neighbours`).
    """

    batch_rows: int
    neighbour_difference: float | None


class BatchSize:
    """Rows in one call of the model: as asked, or as the first chunk shows to be fastest.

    lesson: what is known; None until the first chunk was looked at. on_lesson: told what that has shown,
    and each time when a device's memory turns out to be enough for less, or for more again.

    Shared by all workers of a process: the first that has rows measures while the others wait, since
    trials that disturb each other are worth nothing (a batch of 64 rows was taken once in five runs,
    and the run took twice as long).
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        batch_rows: int | None = None,
        lesson: Lesson | None = None,
        on_lesson: Callable[[Lesson], None] = lambda lesson: None,
    ) -> None:
        """batch_rows: what an earlier run has measured. lesson: this very run's, of a former life."""
        asked = plan.job.job.engine.batch_rows
        self._given = plan.fixed_batch or (asked if asked != "auto" else batch_rows)
        self.lesson = lesson
        self._plan, self._model, self._on_lesson = plan, model, on_lesson
        self._lock = threading.Lock()
        self._most, self._well, self._patience = 0, 0, PATIENCE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self._most or self.lesson is None:
            return ()
        told = f"the device's memory ran out: batches had {self.lesson.batch_rows:,} rows in the end"
        return (f"{told}, {self._most:,} before",)

    @property
    def most(self) -> int:
        """Rows in one call, at most: as many as there were before memory ran out."""
        return max(self._most, self.settled)

    @property
    def settled(self) -> int:
        """Rows in one call; 0 as long as nobody needed to know."""
        return self.lesson.batch_rows if self.lesson is not None else 0

    def settle(self, chunk: Chunk, model: Model | None = None, *, untried: bool = False) -> int:
        """The number of rows; measured on this chunk, which has some, if it isn't known yet.

        model: of the worker that asks, where each device has its own. untried: don't run it on the chunk,
        whose rows may end the process.
        """
        with self._lock:
            if self.lesson is None:
                self.lesson = self._blind() if untried else self._learn(chunk, model or self._model)
                self._on_lesson(self.lesson)
            return self.lesson.batch_rows

    def fit(self, rows: int) -> None:
        """A chunk was scored on a device, which had memory for so many rows in one call.

        Too few halve the batch, for all workers; after some chunks that went well it is doubled again, since
        others may have had the memory. Each time that was too early it takes twice as many chunks.
        """
        with self._lock:
            assert self.lesson is not None
            now = self.lesson.batch_rows
            self._well += 1
            if rows < now:
                if self._most:
                    self._patience *= 2
                self._most, self._well = max(self._most, now), 0
                self._change(rows)
            elif now < self._most and self._well >= self._patience:
                self._well = 0
                self._change(min(2 * now, self._most))

    def _change(self, rows: int) -> None:
        assert self.lesson is not None
        self.lesson = dataclasses.replace(self.lesson, batch_rows=rows)
        if self._given is None:
            keep_size(size_key(self._plan, self._model), rows)
        self._on_lesson(self.lesson)

    def _learn(self, chunk: Chunk, model: Model) -> Lesson:
        rows = self._given or self._measured(chunk, model)
        scorer = Scorer(self._plan, model, rows)
        looked_at = scorer.shortest(chunk, NEIGHBOURS)
        return Lesson(rows, neighbour_difference(self._plan, model, scorer.encoder, looked_at))

    def _measured(self, chunk: Chunk, model: Model) -> int:
        if model.lanes is not None:
            return best_size(self._plan, model, chunk)
        measure = _measure if text_of(self._plan.features) is None else _measure_texts
        return choose_size(dict(measure(self._plan, model, chunk)))

    def _blind(self) -> Lesson:
        return Lesson(self._given or untried_rows(self._plan), None)


def choose_size(rates: Mapping[int, float]) -> int:
    """The batch size to take. rates: batch size -> rows/s of one thread, at least one.

    Of those with long calls that are nearly as fast as any, the smallest that is as good as the
    best: it needs least memory and cache. The largest good one where no call is long.
    """
    best = max(rates.values())
    long = {s: r for s, r in rates.items() if s / r >= LONG_CALL_S and r >= NEARLY_AS_GOOD * best}
    if not long:
        return max(size for size, rate in rates.items() if rate >= AS_GOOD * best)
    return min(size for size, rate in long.items() if rate >= AS_GOOD * max(long.values()))


def _measure(plan: Plan, model: Model, chunk: Chunk) -> Iterator[tuple[int, float]]:
    """Batch size and rows/s, encoding included, at growing sizes until speed falls or time is up."""
    clock = _clock(plan, model)
    spent, best, row_bytes, trial_s, slower = 0.0, 0.0, 0.0, SHORTEST_TRIAL_S, 0
    for size in SIZES:
        expected_s = size / best if best else 0.0
        if size > min(max(1, plan.rows or size), plan.largest_measured) or spent + 2 * expected_s > BUDGET_S:
            return
        batches = max(1, int(trial_s / expected_s)) if best else 1
        rows = max(size, min(size * batches, chunk.columns.num_rows))
        if size * row_bytes > CALL_BYTES:
            return
        scorer = Scorer(plan, model, size)
        took = _fastest(scorer, chunk.repeated(rows), clock)
        row_bytes = max(row_bytes, scorer.call_bytes / size)
        spent += 2 * took
        rate = rows / took
        yield size, rate
        # One that was disturbed says nothing about larger ones; of short calls, not even two.
        slower = slower + 1 if rate < AS_GOOD * best else 0
        if slower > 1 and size / rate >= LONG_CALL_S:
            return
        best = max(best, rate)
        job_s = (plan.rows or 0) / best
        trial_s = min(max(job_s * TRIAL_SHARE, SHORTEST_TRIAL_S), LONGEST_TRIAL_S)


def _measure_texts(plan: Plan, model: Model, chunk: Chunk) -> Iterator[tuple[int, float]]:
    """The same of batches that are full of tokens, as nearly all are; rows are of NOMINAL_TOKENS."""
    text = text_of(plan.features)
    clock = _clock(plan, model)
    smallest = TEXT_SIZES[0]
    # One row tells whether calls are long: a transformer's batch would hold the other workers up.
    start = clock()
    list(Scorer(plan, model, 1).score(chunk.slice(0, 1)))
    if clock() - start > LONG_TEXT_CALL_S / smallest or (text is not None and not text.lengths):
        # Without padding batches are as full as it happens: nothing would be learned from them.
        yield smallest, 1.0
        return
    for size in TEXT_SIZES:
        scorer = Scorer(plan, model, size)
        took = _fastest(scorer, chunk.repeated(size), clock)
        call_s = took / max(1, scorer.calls // TRIALS)
        yield size, size / call_s
        if call_s > LONG_TEXT_CALL_S:
            return


def _clock(plan: Plan, model: Model) -> Callable[[], float]:
    """What times a trial: this thread's own time where all of the work is done in it.

    Threads that fetch from a store, and other processes, then take nothing from a trial.
    """
    calls_out = any(isinstance(binding, HookFeature) for binding in plan.features)
    calls_out = calls_out or any(binding.function is not None for binding in plan.outputs)
    return thread_time if model.threads == 1 and not calls_out else perf_counter


def _fastest(scorer: Scorer, chunk: Chunk, clock: Callable[[], float]) -> float:
    """Seconds for a chunk, the better of two: nothing that happens once counts.

    A first call may take 0.1 s however small it is, for memory. Where such calls ended the search, a batch
    of one row was settled on, and the run took twenty times as long.
    """
    fastest = float("inf")
    for _ in range(TRIALS):
        start = clock()
        for _ in scorer.score(chunk):
            pass
        fastest = min(fastest, clock() - start)
    return max(fastest, SHORTEST_TICK_S)


def untried_rows(plan: Plan) -> int:
    """Rows in one call where nothing may be measured."""
    return UNTRIED_ROWS if text_of(plan.features) is None else TEXT_SIZES[0]


def with_types(plan: Plan, model: Model) -> Plan:
    """The plan with every output's type: as a first batch shows it where nothing else tells.

    Reads rows only if there is such an output; null is the type where there is no row at all.
    """
    if all(binding.type is not None for binding in plan.outputs):
        return plan
    batch = next(_first_batch(plan, model), None)

    def settle(binding: OutputBinding) -> OutputBinding:
        if binding.type is not None:
            return binding
        seen = batch.schema.field(binding.name).type if batch is not None else pa.null()
        return dataclasses.replace(binding, type=seen)

    return dataclasses.replace(plan, outputs=tuple(map(settle, plan.outputs)))


def _first_batch(plan: Plan, model: Model) -> Iterator[pa.RecordBatch]:
    rows = plan.fixed_batch or (UNTYPED_ROWS if text_of(plan.features) is None else TEXT_SIZES[0])
    # As many bad rows as the run may have: a hook that never works isn't asked for every row of the input.
    errors = ErrorBudget(plan.job.job.errors.max_bad_rows, plan.rows)
    for shard in plan.shards:
        for chunk in read_chunks(shard, plan.listing, plan.columns, plan.filter, rows, rows):
            for scored in Scorer(plan, model, rows, errors).score(chunk):
                if scored.predictions is not None:
                    yield scored.predictions
