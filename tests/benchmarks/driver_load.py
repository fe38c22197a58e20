"""What the driver of a run on Ray costs: its engine, with actors that score nothing.

python -m tests.benchmarks.driver_load SHARDS Steady|NoOp FOLDER   one run, on the cluster of RAY_ADDRESS
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time

from batchonnx.scoring.progress import Progress
from tests.benchmarks import no_op
from tests.benchmarks.many import make_files
from tests.benchmarks.no_op import STEADY_SHARDS_S, WORKERS
from tests.integration.ray_cluster import ray_cluster

STEADY_SHARDS, SHARDS = 5_000, 100_000
START_S = 300
"""What so many processes may take to start on few cores."""

GOAL_OF_A_CORE, GOAL_SHARDS_S = 0.02, 1_000

Figures = dict[str, float]


def drive(shards: int, actor: type, folder: Path) -> Figures:
    """A run of so many shards, planned here. plan_s: shards and the plan's record. scoring_s: from the first
    worker's being ready to the last commit.
    """
    from batchonnx import api
    from batchonnx.driver.describe import describe_plan
    from batchonnx.driver.run import open_job
    from batchonnx.engines.events import only_progress
    from batchonnx.engines.ray.beginning import Beginning
    from batchonnx.engines.ray.engine import RayEngine
    from batchonnx.formats.footer import Footer, RowGroup
    from batchonnx.ledger.outputs import output_at
    from batchonnx.planning.shards import LARGEST_BYTES, make_shards
    from batchonnx.scoring.quarantine import ErrorBudget

    job = make_files(1, folder)
    workers = f"{{min: {WORKERS}, max: {WORKERS}}}"
    engine = f"engine: {{name: ray, workers: {workers}, wait_s: {START_S}}}\n"
    (folder / "ray.yaml").write_text(job.read_text() + engine)
    plan, model = open_job(api.load_job(folder / "ray.yaml"))
    file = plan.listing.files[0]
    footer = Footer(plan.listing.schema, (RowGroup(200, LARGEST_BYTES),))
    files = [dataclasses.replace(file, path=f"{file.path}.{n}", footer=footer) for n in range(shards)]
    listing = dataclasses.replace(plan.listing, files=tuple(files))
    output, steady = output_at(plan.output), _Steady()
    with Beginning(plan.job.job.engine, actor) as beginning, output.hold_lease(on_lost=lambda: None):
        begin = perf_counter()
        plan = dataclasses.replace(plan, listing=listing, shards=make_shards(listing, None).shards)
        run = output.open_run(describe_plan(plan, None, ()), {}, fresh=True)
        plan_s = perf_counter() - begin
        budget = ErrorBudget(0, plan.rows)
        engine = RayEngine(plan, model, run, budget, None, None, lambda lesson: None, beginning)
        engine.run(threading.Event(), threading.Event(), only_progress(steady.note))
        run.discard_if_empty()
    assert len(engine.commits) == shards
    return {"plan_s": plan_s, "scoring_s": engine.phases.scoring_s or 0.0, **steady.figures()}


class _Steady:
    """Shards and this process's CPU between the first and the last look at which all workers worked."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, float, int]] = []

    def note(self, progress: Progress) -> None:
        if progress.workers == WORKERS and progress.shards:
            self._looks.append((perf_counter(), process_time(), progress.shards))

    def figures(self) -> Figures:
        if len(self._looks) < 2:
            return {}
        (begin, cpu, done), (end, cpu_then, done_then) = self._looks[0], self._looks[-1]
        took_s = end - begin
        shards_s, of_a_core = (done_then - done) / took_s, (cpu_then - cpu) / took_s
        return {"over_s": took_s, "shards_s": shards_s, "of_a_core": of_a_core}


def driver(folder: Path, run: Callable[..., Figures]) -> Iterator[str]:
    """Both, on one cluster. run: a module, in a process of its own."""
    yield f"driver: {WORKERS} actors that score nothing"
    with ray_cluster(1, WORKERS):
        steady, most = (
            run("tests.benchmarks.driver_load", str(number), actor.__name__, str(folder / "driver"))
            for number, actor in ((STEADY_SHARDS, no_op.Steady), (SHARDS, no_op.NoOp))
        )
    yield (
        f"  {steady['shards_s']:,.0f} shards/s for {steady['over_s']:.0f} s: {steady['of_a_core']:.1%} "
        f"of a core   (goal: {GOAL_OF_A_CORE:.0%} at {STEADY_SHARDS_S})"
    )
    both_s = most["plan_s"] + most["scoring_s"]
    yield (
        f"  {SHARDS:,} shards at once: planned in {most['plan_s']:.1f} s, finished in "
        f"{most['scoring_s']:.1f} s: {SHARDS / both_s:,.0f}/s   (goal: {GOAL_SHARDS_S:,})"
    )


if __name__ == "__main__":
    print(json.dumps(drive(int(sys.argv[1]), getattr(no_op, sys.argv[2]), Path(sys.argv[3]))))
