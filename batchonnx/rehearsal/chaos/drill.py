"""The drill as a whole: a sample, an undisturbed run of it, and then one act after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from random import Random
from time import perf_counter

from batchonnx.driver.run import open_job
from batchonnx.engines.ray.connect import LOCAL, address_of, connected
from batchonnx.job.spec import JobFile
from batchonnx.planning.sample import Sample
from batchonnx.rehearsal.chaos import acts
from batchonnx.rehearsal.chaos.promise import Finding, Verdict, judge
from batchonnx.rehearsal.chaos.stage import Stage
from batchonnx.rehearsal.pace import about_rows, seconds_per_row
from batchonnx.rehearsal.rehearse import Rehearsal
from batchonnx.rehearsal.scratch import scratch_place
from batchonnx.runtime.cores import usable_cores
from batchonnx.scoring.probe import untried_rows

SHARDS = 16
WORK_S = 2.0
"""About how long a run of the sample scores: long enough to be hit in the middle, short enough to be run ten
times over."""

ROUNDS: Mapping[str, int] = {"local": 3, "ray": 1}
"""How often the driver is killed if nobody says: each run on Ray begins with seconds for its actors."""


@dataclass(frozen=True)
class Drill:
    """What was found. rows, shards: of the sample. seed: gives the same moments again."""

    job: str
    engine: str
    rows: int
    shards: int
    seed: int
    runs_s: float
    verdicts: tuple[Verdict, ...]

    @property
    def is_green(self) -> bool:
        """Whether nothing was broken."""
        return all(verdict.status != "broken" for verdict in self.verdicts)


def hold_drill(
    job: JobFile, rounds: int | None, seed: int, on_act: Callable[[str], None] = lambda act: None
) -> Drill:
    """Run a sample of the job, disturb it in every way there is, and say which promises held.

    rounds: how often the driver is killed; None: as ROUNDS has it. on_act: told what is done next. All is
    written into a scratch folder beside the job's output, which is removed. Raises what `api.plan` raises,
    DriverError if even the undisturbed run fails, StorageError.
    """
    begin = perf_counter()
    job, sample, is_in_store = _sampled(job)
    with scratch_place(job) as place, _one_cluster(job) as job:
        stage = Stage(job, sample, place, Random(seed))
        on_act("an undisturbed run")
        calm = stage.finish("undisturbed")
        stage.work_s = max(0.0, calm.wall_s - (calm.watched.owned_s or 0.0))
        stage.scoring_s = _scoring_s(calm)
        stage.expected = stage.published("undisturbed") or {}
        findings = list(
            _findings(stage, rounds or ROUNDS[job.job.engine.name], seed, on_act, is_in_store=is_in_store)
        )
    return Drill(
        job=job.job.name,
        engine=job.job.engine.name,
        rows=calm.watched.rows or calm.summary.rows_in,
        shards=calm.watched.shards,
        seed=seed,
        runs_s=perf_counter() - begin,
        verdicts=judge(findings),
    )


@contextmanager
def _one_cluster(job: JobFile) -> Iterator[JobFile]:
    """The job on one Ray for all runs, where each would start its own: that takes longer than all else."""
    engine = job.job.engine
    if engine.name != "ray" or address_of(engine.address) != LOCAL:
        yield job
        return
    with connected(engine.address):
        address = import_module("ray").get_runtime_context().gcs_address
        yield job.having(engine=engine.model_copy(update={"address": address}))


def _scoring_s(calm: Rehearsal) -> float:
    """From the first rows that a run told of to the last."""
    moments = [seconds for seconds, rows in calm.watched.trace if rows]
    return moments[-1] - moments[0] if moments else 0.0


def _sampled(job: JobFile) -> tuple[JobFile, Sample, bool]:
    """The job with a batch size that no run measures for itself, its sample, and whether it asks a store."""
    plan, model = open_job(job)
    row_s = seconds_per_row(plan, model)
    engine = job.job.engine
    if plan.fixed_batch is None and engine.batch_rows == "auto":
        engine = engine.model_copy(update={"batch_rows": untried_rows(plan)})
        job = job.having(engine=engine)
    workers = engine.workers if isinstance(engine.workers, int) else usable_cores()
    rows = plan.rows if plan.rows is not None else int(about_rows(plan))
    wanted = min(rows, WORK_S * workers / row_s) if row_s else rows
    asks = any(
        path.startswith("s3://") for path in (plan.output, *(file.path for file in plan.listing.files))
    )
    return job, Sample(SHARDS, max(1, ceil(wanted / SHARDS))), asks


def _findings(
    stage: Stage, rounds: int, seed: int, on_act: Callable[[str], None], *, is_in_store: bool
) -> Iterator[Finding]:
    yield from stage.look_at_result("undisturbed", "no disturbance")
    for number in range(1, rounds + 1):
        on_act(f"the driver is killed, round {number} of {rounds}")
        yield from acts.kill_the_driver(stage, number)
    on_act("SIGTERM")
    yield from acts.end_it(stage)
    on_act("two runs at once")
    yield from acts.run_it_twice(stage)
    engine = stage.job.job.engine
    if engine.name == "ray" or engine.hook_processes:
        on_act("a worker is killed")
        yield from acts.kill_a_worker(stage)
    else:
        why = "workers are threads: they die with the driver, which was killed"
        yield Finding("workers may die", "not tried", why)
    if is_in_store:
        on_act("requests fail")
        yield from acts.fail_requests(stage, seed)
    else:
        yield Finding("requests may fail", "not tried", "neither input nor output lies in a bucket")
    for told in stage.seen:
        yield Finding("all or nothing", "broken", told)
