"""A job's settings tried on its own rows: which are the fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchonnx.driver.run import open_job
from batchonnx.job.spec import JobFile
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.rehearsal.pace import about_rows, seconds_per_row
from batchonnx.rehearsal.scratch import into, scratch_place
from batchonnx.rehearsal.tune.search import Tried, search
from batchonnx.rehearsal.tune.settings import Setting, grid
from batchonnx.rehearsal.tune.trial import Trials
from batchonnx.runtime.cores import divide_cores, usable_cores

TUNE_S = 60.0
"""How long the search takes if nobody says."""


LEAST_TEXTS = 1024
"""Texts are batched by length: among few of them no batch is full, whatever its size."""


@dataclass(frozen=True)
class Tuning:
    """What was tried, the best first. given: what the job has now. cores: that could be used."""

    job: str
    cores: int
    given: Setting
    tried: tuple[Tried, ...]

    @property
    def best(self) -> Tried:
        """The setting to take."""
        return self.tried[0]

    @property
    def speedup(self) -> float:
        """The best one's rows/s over those of what the job has now."""
        now = next((one.rows_per_s for one in self.tried if one.setting == self.given), 0.0)
        return self.best.rows_per_s / now if now else 1.0


def tune_job(
    job: JobFile, budget_s: float, on_try: Callable[[Setting, float], None] = lambda setting, rate: None
) -> Tuning:
    """Search the settings of `engine` that decide how fast the job's rows are scored here.

    budget_s: about how long it may take. on_try: told of each try. Writes into a scratch folder beside the
    job's output, which is removed. Raises what `api.plan` raises, what scoring raises, StorageError.
    """
    cores = usable_cores()
    with scratch_place(job) as place:
        plan, model = open_job(into(job, place, "tune"))
        rate = divide_cores(cores, None, plan.chunks).workers / max(seconds_per_row(plan, model), 1e-9)
        trials = Trials(plan, model, place)
        given = given_setting(plan, cores, trials.auto)
        settings = list(dict.fromkeys([given, *grid(plan, cores)]))
        rows = plan.rows if plan.rows is not None else int(about_rows(plan))

        def measure(setting: Setting, wanted: int, most_s: float) -> float:
            found = trials.rows_per_s(setting, wanted, most_s)
            on_try(setting, found)
            return found

        least = min(plan.whole_rows, LEAST_TEXTS) if text_of(plan.features) is not None else 1
        tried = search(settings, given, rate, budget_s, (min(least, rows), max(1, rows)), measure)
    return Tuning(job.job.name, cores, given, tuple(tried))


def given_setting(plan: Plan, cores: int, batch_rows: int) -> Setting:
    """What the job has now. batch_rows: as it gives, or as a run would choose."""
    asked = plan.job.job.engine
    if asked.name == "ray":
        threads = min(asked.resources.num_cpus, cores)
        return Setting(max(1, cores // threads), threads, batch_rows, asked.hook_processes)
    workers = asked.workers if isinstance(asked.workers, int) else None
    budget = divide_cores(cores, workers, plan.chunks)
    threads = budget.threads_per_worker if plan.device.is_cpu else 1
    return Setting(budget.workers, threads, batch_rows, asked.hook_processes)
