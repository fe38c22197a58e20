"""What `tune` finds, beside an exhaustive sweep over its own grid.

    python -m tests.benchmarks --only tuned
    python -m tests.benchmarks.tuned FOLDER CASE...     some of them

The sweep tries every setting over the same rows, each several times, all in turn; medians are compared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from batchonnx import api
from batchonnx.driver.run import open_job
from batchonnx.rehearsal.scratch import into, scratch_place
from batchonnx.rehearsal.tune.settings import Setting, grid
from batchonnx.rehearsal.tune.trial import Trials
from batchonnx.runtime.cores import usable_cores
from tests.benchmarks import foretold

CASES = ("tiny", "middle", "glosses")
BUDGET_S = 60.0
GOAL = 0.95
TRY_S, LATE, CONTENDERS = 2.0, 1.5, 3
"""Of the sweep: about how long a try of the best takes, how much longer one may, how many are tried again."""


def tuned(folder: Path, rounds: int, cases: tuple[str, ...] = CASES) -> Iterator[str]:
    """The table. rounds: tries of each setting in the sweep that are near the best."""
    yield f"tuned: tune in {BUDGET_S:.0f} s beside a sweep over its grid   (goal: {GOAL} of the sweep's best)"
    for name in cases:
        job = foretold.job_of(name, folder)
        if job is None:
            yield f"  {name}: left out, its data or model isn't there (jobs/get_*.py)"
            continue
        loaded = api.load_job(job)
        found = api.tune(loaded, budget_s=BUDGET_S)
        chosen = found.best.setting
        rates = _sweep(loaded, found.best.rows_per_s, rounds, chosen)
        best = max(rates, key=lambda setting: rates[setting])
        share = rates[chosen] / rates[best]
        row = f"  {name:<8} {_named(chosen)}: {rates[chosen]:,.0f} rows/s, best {_named(best)}: "
        row += f"{rates[best]:,.0f}   {share:.2f}, {found.speedup:.2f} times what the job has"
        print(row, file=sys.stderr, flush=True)
        yield row


def _sweep(job: api.JobFile, rate: float, rounds: int, chosen: Setting) -> dict[Setting, float]:
    """Setting -> rows/s: all of them once; those that may be the best and the chosen one, again in turn."""
    with scratch_place(job) as place:
        plan, model = open_job(into(job, place, "sweep"))
        trials = Trials(plan, model, place)
        rows = min(plan.rows or 0, int(rate * TRY_S))
        settings = list(dict.fromkeys([chosen, *grid(plan, usable_cores())]))
        rates = {s: trials.rows_per_s(s, rows, LATE * TRY_S) for s in settings}
        near = sorted(settings, key=lambda setting: -rates[setting])[:CONTENDERS]
        again: dict[Setting, list[float]] = {setting: [] for setting in {*near, chosen}}
        for _ in range(rounds):
            for setting, seen in again.items():
                seen.append(trials.rows_per_s(setting, rows, LATE * TRY_S))
    return rates | {setting: median(seen) for setting, seen in again.items()}


def _named(setting: Setting) -> str:
    return f"{setting.workers} x {setting.threads}, {setting.batch_rows} rows"


if __name__ == "__main__":
    place_, *names = sys.argv[1:]
    print("\n".join(tuned(Path(place_), 3, tuple(names) or CASES)))
