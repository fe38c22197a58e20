"""The local engine: workers as threads of this process, sharing one session."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Sequence
from time import perf_counter

from batchonnx.engines.engine import Phases, interrupted
from batchonnx.engines.events import ShardCommitted, Tell
from batchonnx.engines.spare import SpareHands
from batchonnx.engines.worker import Shards, Stopped, Worker
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Commit
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard, largest_first
from batchonnx.runtime.machine import resident_bytes
from batchonnx.runtime.session import Cancelled, Model
from batchonnx.scoring.probe import BatchSize, Lesson
from batchonnx.scoring.progress import STAGES, Progress
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import ShardReading
from batchonnx.storage.s3 import retries_made

PROGRESS_EVERY_S = 0.2


class LocalEngine:
    """Scores a plan's shards with as many threads as workers were asked for; see `engine.Engine`.

    run: an unfinished run; what it has commits for isn't scored again. threads: of each call of the model.
    early: see `Worker`.
    busy_s, calls, first_at: as `Worker` counts them, over all workers.
    """

    name = "local"

    def __init__(
        self,
        plan: Plan,
        model: Model,
        batch: BatchSize,
        budget: ErrorBudget,
        workers: int,
        run: Run,
        threads: int = 1,
        early: dict[int, ShardReading] | None = None,
    ) -> None:
        self._plan, self._model, self._batch, self._budget = plan, model, batch, budget
        self._run, self._done = run, run.commits
        self._open_shards = [shard for shard in plan.shards if shard.number not in run.commits]
        before = [run.commits[shard.number] for shard in plan.shards if shard.number in run.commits]
        # Known once: a plan of 100,000 shards is too long to be looked through five times a second.
        self._before, self._rows_before = len(before), sum(commit.rows_in for commit in before)
        self._rows_total, self._reads_ahead = plan.rows, plan.listing.is_remote
        self._told, self._retried = 0, retries_made()
        self._ending = threading.Event()
        self.workers, self.threads = workers, threads
        self.apart, self.lost, self.copied = len(run.suspects - run.commits.keys()), 0, 0
        self.phases = Phases()
        self.notes: tuple[str, ...] = ()
        spare = SpareHands(workers)
        self._workers = [
            Worker(plan, model, batch, budget, run, spare, self._ending, f"worker-{number}", early)
            for number in range(workers)
        ]
        self._commits: list[Commit] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(
        self,
        stop: threading.Event,
        drain: threading.Event,
        tell: Tell | None,
    ) -> None:
        """Score every open shard; `tell` is called from this thread, about five times a second.

        Raises the first error of any worker, after all have ended; Interrupted once `stop` is set, or, where
        shards are left, once `drain` is set and those in work are done.
        """
        begin = perf_counter()
        shards = _ShardQueue(self._open_shards, self._run.suspects, drain)
        threads = [
            threading.Thread(target=self._work, args=(worker, shards), name=f"worker-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(PROGRESS_EVERY_S)
                if stop.is_set():
                    raise interrupted(len(self._done) + len(self._commits), len(self._plan.shards))
                if tell is not None:
                    self._report(tell, perf_counter() - begin)
                if self._error is not None:
                    break
            if tell is not None:
                self._report(tell, perf_counter() - begin)
        finally:
            self._end(threads)
            self._run.end()
        if self._error is not None:
            raise self._error
        if drain.is_set() and len(self._commits) < len(self._open_shards):
            raise interrupted(len(self._done) + len(self._commits), len(self._plan.shards))

    @property
    def commits(self) -> list[Commit]:
        """Of all shards that are done, in former lives of the run or now."""
        return [*self._done.values(), *self._commits]

    @property
    def lesson(self) -> Lesson | None:
        """What the first rows taught; None if none had to be scored."""
        return self._batch.lesson

    @property
    def busy_s(self) -> dict[str, float]:
        """Stage -> seconds, summed over all workers."""
        each = [worker.busy_s for worker in self._workers]
        return {stage: sum(seconds[stage] for seconds in each) for stage in STAGES}

    @property
    def calls(self) -> int:
        """Calls of the model."""
        return sum(worker.calls for worker in self._workers)

    @property
    def retries(self) -> int:
        """Requests to a store that were sent again."""
        return retries_made() - self._retried

    @property
    def halved(self) -> int:
        """Batches that needed too much memory and were scored in pieces."""
        return sum(worker.halved for worker in self._workers)

    @property
    def first_at(self) -> float | None:
        """When the first batch was predicted (perf_counter)."""
        return min((w.first_at for w in self._workers if w.first_at is not None), default=None)

    def _work(self, worker: Worker, shards: Shards) -> None:
        try:
            for commit in worker.stream(shards):
                self._commits.append(commit)
        except (Stopped, Cancelled):
            return
        except BaseException as error:  # handed over: run() raises it in the caller's thread
            with self._lock:
                self._error = self._error or error
            self._ending.set()
            self._model.cancel()

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        if any(thread.is_alive() for thread in threads):
            self._ending.set()
            self._model.cancel()
            for thread in threads:
                thread.join()

    def _report(self, tell: Tell, elapsed_s: float) -> None:
        new = self._commits[self._told :]
        self._told += len(new)
        for commit in new:
            tell(ShardCommitted(commit))
        tell(self._progress(elapsed_s))

    def _progress(self, elapsed_s: float) -> Progress:
        return Progress(
            shards=self._before + len(self._commits),
            shards_total=len(self._plan.shards),
            rows_in=sum(worker.rows_in for worker in self._workers),
            rows_before=self._rows_before,
            quarantined=self._budget.spent,
            rows_total=self._rows_total,
            elapsed_s=elapsed_s,
            workers=len(self._workers),
            busy_s=self.busy_s,
            reads_ahead=self._reads_ahead,
            memory=resident_bytes(),
            retries=self.retries,
        )


class _ShardQueue:
    """Each shard once, to whichever worker asks next.

    The largest first, so that the last ones are small; after them those whose rows may end a
    process, when the others have settled the batch size. Once `drain` is set, none.
    """

    def __init__(self, shards: Sequence[Shard], suspects: Container[int], drain: threading.Event) -> None:
        self._drain = drain
        self._shards = iter(largest_first(shards, suspects))
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Shard]:
        return self

    @property
    def is_ready(self) -> bool:
        """Nothing is waited for."""
        return True

    def __next__(self) -> Shard:
        with self._lock:
            if self._drain.is_set():
                raise StopIteration
            return next(self._shards)
