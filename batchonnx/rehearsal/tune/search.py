"""Which setting is fastest, found in a given time: all are tried for a moment, the better ones for longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from batchonnx.rehearsal.tune.settings import Setting

ROUNDS = 3
"""Each has a third of the time: for all settings, for the better ones, and for the best few, in turn."""

BETTER, BEST = 4, 2
REPEATS = 3
"""Of the best few. What else the machine does meanwhile comes and goes: a median of tries in turn stands."""

LATE = 2.5
"""A setting that takes so many times as long as the best one is told already: it is ended."""

AS_GOOD = 0.97
"""A setting that is no slower than this is as good, and is taken if it is what the job has already."""

Measure = Callable[[Setting, int, float], float]
"""setting, rows, most seconds -> rows/s."""


@dataclass(frozen=True)
class Tried:
    """A setting and how fast it was. rows_per_s: the median of its last round; tries: of them all."""

    setting: Setting
    rows_per_s: float
    tries: tuple[float, ...]


def search(
    settings: Sequence[Setting],
    given: Setting,
    rows_per_s: float,
    budget_s: float,
    rows_between: tuple[int, int],
    measure: Measure,
) -> list[Tried]:
    """All settings with what was measured of them, the best first.

    given: what the job has; it stays to the end. rows_per_s: a guess, for the first round. rows_between: the
    fewest rows that tell anything, however long they take, and how many there are.
    """
    tries: dict[Setting, list[float]] = {setting: [] for setting in settings}
    last: dict[Setting, float] = {}
    left, best = list(tries), rows_per_s
    round_s = budget_s / ROUNDS
    for kept, repeats in ((len(left), 1), (BETTER, 1), (BEST, REPEATS)):
        left = sorted(left, key=lambda setting: -last.get(setting, 0.0))[:kept]
        if given in tries and given not in left:
            left.append(given)
        took_s = round_s / (len(left) * repeats)
        rows = min(rows_between[1], max(rows_between[0], int(best * took_s)))
        most_s = LATE * max(took_s, rows / best)
        found: dict[Setting, list[float]] = {setting: [] for setting in left}
        for _ in range(repeats):
            for setting in left:
                found[setting].append(measure(setting, rows, most_s))
        for setting, rates in found.items():
            tries[setting] += rates
            last[setting] = median(rates)
        best = max(last[setting] for setting in left) or best / 2
    ranked = sorted(left, key=lambda setting: -last[setting])
    if given in left and last[given] >= AS_GOOD * last[ranked[0]]:
        ranked.remove(given)
        ranked.insert(0, given)
    others = sorted((setting for setting in tries if setting not in left), key=lambda setting: -last[setting])
    return [Tried(setting, last[setting], tuple(tries[setting])) for setting in (*ranked, *others)]
