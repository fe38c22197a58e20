"""Which engine scores what is missing, and what it begins with while the plan is made."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from batchonnx.engines.devices import Devices
from batchonnx.engines.engine import Engine
from batchonnx.engines.events import Tell
from batchonnx.engines.local import LocalEngine
from batchonnx.engines.ray.beginning import Beginning
from batchonnx.engines.ray.engine import RayEngine
from batchonnx.job.spec import JobFile
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Manifest, Probe
from batchonnx.planning.plan import Plan
from batchonnx.scoring.probe import BatchSize, Lesson
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import ShardReading


def begin_engine(job: JobFile) -> AbstractContextManager[Beginning | None]:
    """What takes its time and needs no plan: a Ray cluster and its first actors; threads need nothing."""
    return Beginning(job.job.engine) if job.job.engine.name == "ray" else nullcontext()


def score(
    plan: Plan,
    devices: Devices,
    run: Run,
    former: Manifest | None,
    beginning: Beginning | None,
    crew: tuple[int, int, dict[int, ShardReading]],
    stop: threading.Event,
    drain: threading.Event,
    tell: Tell,
) -> Engine:
    """Score what isn't committed yet. devices, crew: of a local engine; see there."""
    measured = former.batch_rows if former is not None and _has_measured(former, plan) else 0
    taught = run.probe
    if taught is None and run.plan.since is not None and former is not None:
        taught = Probe(former.batch_rows, former.neighbour_difference)
    lesson = Lesson(taught.batch_rows, taught.neighbour_difference) if taught is not None else None
    model = devices.models[0]
    spent = sum(commit.quarantined for commit in run.commits.values())
    kept = sum(run.commits[shard].rows_in for shard in run.plan.kept)
    rows = plan.rows + kept if plan.rows is not None else None
    errors = ErrorBudget(plan.job.job.errors.max_bad_rows, rows, spent)

    def keep(told: Lesson) -> None:
        run.keep_probe(probe_of(told))

    engine: Engine
    if beginning is not None:
        engine = RayEngine(plan, model, run, errors, lesson, measured or None, keep, beginning)
    else:
        batch = BatchSize(plan, model, measured or None, lesson, keep)
        engine = LocalEngine(plan, devices, batch, errors, crew[0], run, *crew[1:])
    engine.run(stop, drain, tell)
    return engine


def _has_measured(former: Manifest, plan: Plan) -> bool:
    """Whether a former run's batch size is this one's as well. On devices sizes are kept elsewhere."""
    on_cpu = former.work is None or former.work.device == "cpu"
    return former.model == plan.model.digest and on_cpu and plan.device.is_cpu


def probe_of(lesson: Lesson) -> Probe:
    """As a run's record and its manifest keep it."""
    return Probe(lesson.batch_rows, lesson.neighbour_difference)
