"""One setting tried: the local engine over a sample, into a scratch folder, for so long at most."""

from __future__ import annotations

import dataclasses
import threading
from functools import cached_property
from itertools import count
from time import perf_counter

from batchonnx.driver.describe import describe_plan
from batchonnx.driver.devices import open_devices
from batchonnx.engines.events import only_progress
from batchonnx.engines.local import LocalEngine
from batchonnx.errors import Interrupted
from batchonnx.ledger.outputs import output_at
from batchonnx.planning.plan import Plan
from batchonnx.planning.sample import Sample, take_sample
from batchonnx.rehearsal.scratch import remove_place
from batchonnx.rehearsal.tune.settings import Setting
from batchonnx.runtime.chain import open_again
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.hook_processes import hook_processes
from batchonnx.scoring.probe import BatchSize, Lesson, with_types
from batchonnx.scoring.progress import Progress
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import read_chunks

PIECES = 8
"""Of each sample, if each has a whole batch or window: as many as several workers have in turn."""


class Trials:
    """Tries settings on rows of one plan. place: the scratch folder."""

    def __init__(self, plan: Plan, model: Model, place: str) -> None:
        self._plan, self._place = with_types(plan, model), place
        self._models = {model.threads: model}
        self._numbers = count()

    def rows_per_s(self, setting: Setting, rows: int, most_s: float) -> float:
        """Of one try over `rows` rows, all settings over the same ones; ended early after most_s.

        Raises what scoring raises.
        """
        plan = self._set(setting)
        shards = len(plan.shards)
        # Beginnings of shards, where there are enough of them: whatever is skipped is read all the same.
        pieces = min(PIECES, shards) if shards >= PIECES // 2 else PIECES
        pieces = max(1, min(pieces, rows // self._plan.whole_rows))
        plan = take_sample(plan, Sample(pieces, max(1, rows // pieces)))
        place = f"{self._place}/trial-{next(self._numbers)}"
        output = output_at(f"{place}/out")
        model = self._models.get(setting.threads) or open_again(plan.model, setting.threads, plan.device)
        self._models[setting.threads] = model
        stop = threading.Event()
        timer = threading.Timer(most_s, stop.set)
        seen: list[Progress] = []
        with hook_processes(plan), output.hold_lease(on_lost=stop.set):
            run = output.open_run(describe_plan(plan, None, ()))
            batch = BatchSize(plan, model, lesson=Lesson(setting.batch_rows, None))
            errors = ErrorBudget(plan.job.job.errors.max_bad_rows, plan.rows)
            engine = LocalEngine(
                plan, open_devices(plan, model), batch, errors, setting.workers, run, setting.threads
            )
            timer.start()
            begin = perf_counter()
            try:
                engine.run(stop, threading.Event(), only_progress(seen.append))
                scored = sum(commit.rows_in for commit in engine.commits)
            except Interrupted:
                self._models.pop(setting.threads)  # its calls have been cancelled, for good
                scored = seen[-1].rows_in if seen else 0
            finally:
                timer.cancel()
            took = perf_counter() - begin
        remove_place(place)
        return scored / took

    @cached_property
    def auto(self) -> int:
        """The batch size that a run would choose by itself, or that the job gives."""
        plan = self._plan
        for shard in plan.shards:
            chunks = read_chunks(
                shard, plan.listing, plan.columns, plan.filter, plan.whole_rows, plan.chunk_rows
            )
            chunk: Chunk | None = next((one for one in chunks if one.columns.num_rows), None)
            if chunk is not None:
                with hook_processes(plan):
                    return BatchSize(plan, self._models[1]).settle(chunk)
        return 1

    def _set(self, setting: Setting) -> Plan:
        """The plan of the job with this setting: chunks are whole batches, of whatever size."""
        job = self._plan.job
        update = {"batch_rows": setting.batch_rows, "hook_processes": setting.hook_processes}
        engine = job.job.engine.model_copy(update=update)
        return dataclasses.replace(self._plan, job=job.having(engine=engine))
