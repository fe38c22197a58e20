"""The first rows, scored for what they teach: the best batch size, and types that only they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import pyarrow as pa

from batchonnx.plan.bindings import OutputBinding
from batchonnx.plan.plan import Plan
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.read import read_chunks
from batchonnx.scoring.scorer import Scorer

SIZES = (1, 4, 16, 64, 256, 1024, 4096)
BUDGET_S = 0.3
"""For all sizes together. A size is tried only if it can be expected to fit in what is left."""

GOOD_ENOUGH = 0.97
"""The smallest batch with this share of the best speed is taken: it needs less memory and cache."""

DEFAULT_ROWS = 256
PROBE_BYTES = 8 << 20


@dataclass(frozen=True)
class Probe:
    """What the first rows taught. rates: batch size -> rows/s of one thread, where measured."""

    plan: Plan
    batch_rows: int
    rates: dict[int, float]


def probe(plan: Plan, model: Model, remembered: int | None) -> Probe:
    """Settle the batch size and the output types.

    remembered: what an earlier run of the same model settled on. Reads and scores first rows
    only where something is unsettled. Raises as scoring does.
    """
    asked = plan.job.job.engine.batch_rows
    settled = plan.fixed_batch or (asked if asked != "auto" else remembered)
    has_untyped = any(binding.type is None for binding in plan.outputs)
    if settled is not None and not has_untyped:
        return Probe(plan, settled, {})
    chunk = next(_first_rows(plan, only_first_shard=not has_untyped), None)
    if chunk is None:
        return Probe(_typed(plan, None), settled or DEFAULT_ROWS, {})
    if has_untyped:
        rows = min(settled or DEFAULT_ROWS, chunk.columns.num_rows)
        head = Chunk(chunk.columns.slice(0, rows), chunk.segments)
        plan = _typed(plan, next(Scorer(plan, model, plan.fixed_batch or rows).score(head)))
    if settled is not None:
        return Probe(plan, settled, {})
    rates = dict(_measure(plan, model, chunk))
    best = max(rates.values())
    return Probe(plan, min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * best), rates)


def _first_rows(plan: Plan, only_first_shard: bool) -> Iterator[Chunk]:
    rows = max(1, min(max(SIZES), int(PROBE_BYTES / plan.row_bytes)))
    for shard in plan.shards[: 1 if only_first_shard else None]:
        chunks = read_chunks(shard, plan.listing, plan.columns, plan.filter, rows, rows)
        yield from (chunk for chunk in chunks if chunk.columns.num_rows)


def _measure(plan: Plan, model: Model, chunk: Chunk) -> Iterator[tuple[int, float]]:
    """Rows/s of encoding and scoring at growing sizes, until speed falls or time is up."""
    begin = perf_counter()
    best = 0.0
    for size in SIZES:
        if size > chunk.columns.num_rows and size > 1:
            return
        expected_s = 2 * size / best if best else 0.0
        if perf_counter() - begin + expected_s > BUDGET_S:
            return
        rate = _rate(Scorer(plan, model, size), chunk, size)
        yield size, rate
        if rate < 0.8 * best:
            return
        best = max(best, rate)


def _rate(scorer: Scorer, chunk: Chunk, size: int) -> float:
    """The best of a few timings; the first call, which allocates, is left out where calls are quick."""
    batch = Chunk(chunk.columns.slice(0, size), chunk.segments)
    fastest, spent, calls = float("inf"), 0.0, 0
    while calls < 2 or (spent < 0.003 and calls < 20):
        start = perf_counter()
        for _ in scorer.score(batch):
            pass
        took = perf_counter() - start
        fastest, spent, calls = min(fastest, took), spent + took, calls + 1
        if took > BUDGET_S / 4:
            break
    return size / fastest


def _typed(plan: Plan, batch: pa.RecordBatch | None) -> Plan:
    """The plan with every output's type: as seen in `batch`; null where there is no row at all."""

    def settle(binding: OutputBinding) -> OutputBinding:
        if binding.type is not None:
            return binding
        seen = batch.schema.field(binding.name).type if batch is not None else pa.null()
        return dataclasses.replace(binding, type=seen)

    return dataclasses.replace(plan, outputs=tuple(map(settle, plan.outputs)))
