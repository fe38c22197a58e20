"""The first rows, and what they teach: the best batch size, and types that only they show."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from time import perf_counter

import pyarrow as pa

from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.read import read_chunks
from batchonnx.scoring.scorer import Scorer

SIZES = (1, 4, 16, 64, 256, 1024, 2048, 4096)
BUDGET_S = 0.3
"""For all sizes together. A size is tried only if it can be expected to fit in what is left."""

TRIAL_S = 0.0015
"""A size's calls are repeated for about so long; sizes that take far less aren't worth a trial."""

UNTYPED_ROWS = 256


class BatchSize:
    """Rows in one call of the model: as asked, or as the first chunk shows to be fastest.

    settled: the number, once it is known. Shared by all workers of a process: the first that
    has rows measures, the others wait for its word.
    """

    def __init__(self, plan: Plan, model: Model, remembered: int | None) -> None:
        asked = plan.job.job.engine.batch_rows
        self.settled = plan.fixed_batch or (asked if asked != "auto" else remembered)
        self._plan, self._model = plan, model
        self._lock = threading.Lock()

    def settle(self, chunk: Chunk) -> int:
        """The number of rows; measured on this chunk, which has some, if it isn't known yet."""
        with self._lock:
            if self.settled is None:
                rates = dict(_measure(self._plan, self._model, chunk))
                self.settled = max(rates, key=lambda size: rates[size])
            return self.settled


def _measure(plan: Plan, model: Model, chunk: Chunk) -> Iterator[tuple[int, float]]:
    """Batch size and rows/s, encoding included, at growing sizes until speed falls or time is up."""
    begin = perf_counter()
    best = 0.0
    for size in SIZES:
        expected_s = size / best if best else 0.0
        if size > 1 and expected_s < TRIAL_S / 2 and size < 64:
            continue
        if size > max(1, chunk.columns.num_rows) or perf_counter() - begin + 2 * expected_s > BUDGET_S:
            return
        rate = _rate(Scorer(plan, model, size), chunk, size)
        yield size, rate
        if rate < 0.8 * best:
            return
        best = max(best, rate)


def _rate(scorer: Scorer, chunk: Chunk, size: int) -> float:
    """The best of some timings; the first call, which allocates, counts only where calls are slow."""
    batch = Chunk(chunk.columns.slice(0, size), chunk.segments)
    fastest, spent, calls = float("inf"), 0.0, 0
    while calls < 2 or spent < TRIAL_S:
        start = perf_counter()
        for _ in scorer.score(batch):
            pass
        took = perf_counter() - start
        fastest, spent, calls = min(fastest, took), spent + took, calls + 1
        if took > BUDGET_S / 4:
            break
    return size / fastest


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
    rows = plan.fixed_batch or UNTYPED_ROWS
    for shard in plan.shards:
        for chunk in read_chunks(shard, plan.listing, plan.columns, plan.filter, rows, rows):
            if chunk.columns.num_rows:
                yield next(Scorer(plan, model, rows).score(chunk))
