"""The batch size for a device: the smallest that is about as fast as any, as the job runs there.

Unlike on a CPU, a call that is too small leaves most of the device idle, and one that is too large has no
memory. Sizes are tried with as many batches in flight as there will be, encoded and decoded as in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.runtime.session import Model
from batchonnx.scoring.arrange import Piece
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.known_sizes import find_size, keep_size, size_key
from batchonnx.scoring.scorer import Scorer

SMALLEST = 8
"""No device was ever busy with fewer rows."""

TRIAL_S = 0.1
BUDGET_S = 10.0
"""For all sizes together: it is spent once for a model, a device and shapes, and then remembered."""

AS_GOOD = 0.97
GAIN = 1.03
"""A size that gains less over the best of all smaller ones is none that is worth its memory."""


def best_size(plan: Plan, model: Model, chunk: Chunk) -> int:
    """Rows in one call; as found before, or measured on this chunk, which has some."""
    key, largest = size_key(plan, model), plan.largest_measured
    found = find_size(key)
    if found is None:
        # A short job isn't held up, and teaches others nothing.
        is_short = plan.rows is not None and plan.rows < largest
        most = 1 << max(1, plan.rows or 1).bit_length() - 1 if is_short else largest
        rates = dict(search(partial(_rate, plan, model, chunk), most))
        found = knee(rates) if rates else 1
        if max(rates, default=1) < most or not is_short:
            keep_size(key, found)
    return min(found, largest)


def known_size(plan: Plan, model: Model) -> int | None:
    """Rows in one call as found before; None where they have to be measured, or nobody asks for it."""
    is_open = plan.job.job.engine.batch_rows == "auto" and plan.fixed_batch is None
    found = find_size(size_key(plan, model)) if is_open and model.lanes is not None else None
    return min(found, plan.largest_measured) if found is not None else None


def knee(rates: Mapping[int, float]) -> int:
    """The smallest size that is about as fast as the best. rates: size -> rows/s, at least one."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= AS_GOOD * best)


def search(rate_of: Callable[[int], float | None], largest: int) -> Iterator[tuple[int, float]]:
    """Doubled sizes and their rates, until two gain nothing, memory runs out (None), or time does."""
    begin, best, idle = perf_counter(), 0.0, 0
    size = min(SMALLEST, largest)
    while size <= largest and idle < 2 and perf_counter() - begin < BUDGET_S:
        rate = rate_of(size)
        if rate is None:
            return
        yield size, rate
        idle = idle + 1 if rate < GAIN * best else 0
        best, size = max(best, rate), 2 * size


def _rate(plan: Plan, model: Model, chunk: Chunk, size: int) -> float | None:
    """Rows/s, the better of two trials; None if there isn't memory for such batches, all those in flight.

    Of texts, rows of `lattice.NOMINAL_TOKENS`; what only fills a batch up isn't counted.
    """
    assert model.lanes is not None
    at_once = model.lanes.count
    scorers = [Scorer(plan, model, size) for _ in range(at_once)]
    chunk = chunk.repeated(size)
    # The first batch of a chunk is a full one; of texts, one of the longest.
    pieces = [next(iter(scorer.arrange(chunk))).piece.part(0, 1) for scorer in scorers]
    stop, fed = pieces[0].cuts[0]
    text = text_of(plan.features)
    rows = size * stop / fed if text is not None and text.lengths else stop
    works = list(zip(scorers, pieces, strict=True))
    with ThreadPoolExecutor(at_once) as pool:
        _seconds(pool, works, 1)  # memory is taken, kernels are chosen
        once = _seconds(pool, works, 1)
        times = max(1, int(TRIAL_S / once))
        took = min(_seconds(pool, works, times), _seconds(pool, works, times))
    return None if any(scorer.halved for scorer in scorers) else rows * at_once * times / took


def _seconds(pool: ThreadPoolExecutor, works: Sequence[tuple[Scorer, Piece]], times: int) -> float:
    """Until each has scored its batch so many times, beside the others."""

    def repeat(scorer: Scorer, piece: Piece) -> None:
        for _ in range(times):
            for _ in scorer.score_piece(piece):
                pass

    start = perf_counter()
    for done in [pool.submit(repeat, *work) for work in works]:
        done.result()
    return max(perf_counter() - start, 1e-6)
