"""Two models' speed on the same rows, taken in turn, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter, thread_time

ROUNDS = 5
TRIAL_S = 0.02
LONGEST_S = 6.0
"""For one batch size. A model that takes longer for a call is measured in fewer rounds, at least one."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """Rows per second of two models at one batch size, one thread each, in turn.

    a, b: by CPU time of the calling thread, which other processes take nothing from. wall_a, wall_b: by the
    clock on the wall. speedup: the median of b's speed to a's, round by round, by CPU time.
    """

    batch_rows: int
    a: float
    b: float
    wall_a: float
    wall_b: float
    speedup: float


def time_in_turn(rows: int, call_a: Call, call_b: Call) -> Speed:
    """Run two models on the same batch, A B B A A B …, so that neither has the better moments.

    rows: of the batch. Each call is repeated to take TRIAL_S. What a first call does once isn't counted.
    """
    times = [_repeats(call) for call in (call_a, call_b)]
    expected_s = sum(count * each for count, each in times)
    rounds = max(1, min(ROUNDS, int(LONGEST_S / expected_s)))
    taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            taken[which].append(_trial((call_a, call_b)[which], times[which][0]))
    cpu_a, cpu_b = ([cpu for cpu, _ in one] for one in taken)
    wall_a, wall_b = (median(wall for _, wall in one) for one in taken)
    speedup = median(a / b for a, b in zip(cpu_a, cpu_b, strict=True))
    return Speed(rows, rows / median(cpu_a), rows / median(cpu_b), rows / wall_a, rows / wall_b, speedup)


def _repeats(call: Call) -> tuple[int, float]:
    """How often to call in one trial, and about how long a call takes."""
    call()
    start = perf_counter()
    call()
    each = max(perf_counter() - start, 1e-6)
    return max(1, int(TRIAL_S / each)), each


def _trial(call: Call, times: int) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    wall, cpu = perf_counter(), thread_time()
    for _ in range(times):
        call()
    spent = max(thread_time() - cpu, 1e-9)
    return spent / times, (perf_counter() - wall) / times
