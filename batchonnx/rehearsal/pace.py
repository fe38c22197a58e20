"""How many rows there are and how long one takes, about: enough to choose how many to try a job on."""

from __future__ import annotations

from contextlib import closing
from time import perf_counter

from batchonnx.formats.text_input import BLOCK_BYTES, open_first_block, unpacked
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.hook_processes import hook_processes
from batchonnx.scoring.probe import untried_rows, with_types
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import begin_reading
from batchonnx.scoring.scorer import Scorer

ENOUGH_S, MOST_S, GROWTH = 0.1, 2.0, 4
"""A first call may take 0.1 s however small it is: what takes less is tried again."""
STEADY = 0.8
"""Few texts fill no batch: more are tried as long as that takes much less for each."""


LOOKED_AT = 3


def about_rows(plan: Plan) -> float:
    """Of files that say nothing of their rows: by the lines of the first blocks of a few of them."""
    files = plan.listing.files
    chosen = [files[place * len(files) // LOOKED_AT] for place in range(LOOKED_AT)]
    lines = read = 0
    for file in chosen:
        with open_first_block(file) as stream:
            text = unpacked(stream, file.path)  # which closes the stream, once nobody holds it
            lines += text.read(BLOCK_BYTES).count(b"\n")
            read += min(stream.tell(), file.size)
    return sum(file.size for file in files) * lines / max(1, read)


def seconds_per_row(plan: Plan, model: Model) -> float:
    """To encode, predict and decode one of the first rows in one thread; 0 where there is no row.

    Raises what scoring raises.
    """
    plan = with_types(plan, model)
    asked = plan.job.job.engine.batch_rows
    batch_rows = plan.fixed_batch or (asked if asked != "auto" else untried_rows(plan))
    errors = ErrorBudget(plan.job.job.errors.max_bad_rows, plan.rows)
    for shard in plan.shards:
        reading = begin_reading(plan, shard)
        with closing(reading), hook_processes(plan):
            chunks = reading.chunks(plan.whole_rows)
            chunk = next((chunk for chunk in chunks if chunk.columns.num_rows), None)
            if chunk is None:
                continue
            scorer = Scorer(plan, model, batch_rows, errors)
            rows, most, before = 1, int(chunk.columns.num_rows), float("inf")
            while True:
                part = chunk.slice(0, rows)
                took = _took(scorer, part)
                if took < ENOUGH_S:
                    took = min(took, _took(scorer, part))
                is_steady = took >= ENOUGH_S and took / rows > STEADY * before
                if is_steady or GROWTH * took > MOST_S or rows == most:
                    return took / rows
                before = took / rows
                rows = min(GROWTH * rows, most)
    return 0.0


def _took(scorer: Scorer, rows: Chunk) -> float:
    begin = perf_counter()
    for _ in scorer.score(rows):
        pass
    return perf_counter() - begin
