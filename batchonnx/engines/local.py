"""The local engine: workers as threads of this process, sharing one session."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Sequence
from time import perf_counter

from batchonnx.engines.devices import Devices
from batchonnx.engines.engine import Phases, interrupted
from batchonnx.engines.events import ShardCommitted, Tell
from batchonnx.engines.spare import SpareHands
from batchonnx.engines.worker import Shards, Stopped, Worker
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Commit
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard, largest_first
from batchonnx.runtime.machine import resident_bytes
from batchonnx.runtime.session import Cancelled, DeviceLost
from batchonnx.scoring.probe import BatchSize, Lesson
from batchonnx.scoring.progress import STAGES, DeviceUse, Progress
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import ShardReading
from batchonnx.storage.s3_requests import retries_made

PROGRESS_EVERY_S = 0.2


class LocalEngine:
    """Scores a plan's shards with as many threads as workers were asked for; see `engine.Engine`.

    devices: with the model on each; workers take turns in choosing theirs. A worker whose device is lost
    ends, and what it hadn't committed is scored once the others have done theirs.
    run: an unfinished run; what it has commits for isn't scored again. threads: of each call of the model.
    early: see `Worker`.
    busy_s, calls, first_at: as `Worker` counts them, over all workers.
    """

    name = "local"

    def __init__(
        self,
        plan: Plan,
        devices: Devices,
        batch: BatchSize,
        budget: ErrorBudget,
        workers: int,
        run: Run,
        threads: int = 1,
        early: dict[int, ShardReading] | None = None,
    ) -> None:
        self._plan, self._devices, self._batch, self._budget = plan, devices, batch, budget
        self._run, self._done = run, run.commits
        self._open_shards = [shard for shard in plan.shards if shard.number not in run.commits]
        before = [run.commits[shard.number] for shard in plan.shards if shard.number in run.commits]
        # Known once: a plan of 100,000 shards is too long to be looked through five times a second.
        self._before, self._rows_before = len(before), sum(commit.rows_in for commit in before)
        self._rows_total, self._reads_ahead = plan.rows, plan.listing.is_remote
        self._told, self._retried = 0, retries_made()
        self._ending = threading.Event()
        self.workers, self.threads, self._early = workers, threads, early
        self.apart, self.lost, self.copied = len(run.suspects - run.commits.keys()), 0, 0
        self.phases = Phases()
        self._workers: list[Worker] = []
        self._former = self._former_rows = 0
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
        self._devices.begin()
        try:
            while True:
                lost = len(self._devices.lost)
                self._round(begin, stop, drain, tell)
                if len(self._devices.lost) == lost or not self._left() or drain.is_set():
                    break
                self._devices.require_one()
        finally:
            self._devices.end()
            self._run.end()
        if drain.is_set() and self._left():
            raise interrupted(len(self._done) + len(self._commits), len(self._plan.shards))

    def _round(
        self,
        begin: float,
        stop: threading.Event,
        drain: threading.Event,
        tell: Tell | None,
    ) -> None:
        """Score what is left with the devices that are left, as long as those last."""
        # What a lost worker had scored and not committed counts once: when it is scored again.
        self._former, self._former_rows = len(self._workers), sum(c.rows_in for c in self._commits)
        self._budget.recount(sum(commit.quarantined for commit in self.commits))
        shards = _ShardQueue(self._left(), self._run.suspects, drain)
        threads = []
        for place, worker, device in self._hire():
            name = f"worker-{place}"
            threads.append(
                threading.Thread(target=self._work, args=(worker, device, shards), name=name, daemon=True)
            )
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(PROGRESS_EVERY_S)
                if stop.is_set():
                    raise interrupted(len(self._done) + len(self._commits), len(self._plan.shards))
                self._devices.look()
                if tell is not None:
                    self._report(tell, perf_counter() - begin)
                if self._error is not None:
                    break
            if tell is not None:
                self._report(tell, perf_counter() - begin)
        finally:
            self._end(threads)
        if self._error is not None:
            raise self._error

    def _hire(self) -> Iterator[tuple[int, Worker, int]]:
        """Workers for the devices that are left: their numbers, they, and the number of each one's device."""
        spare, left = SpareHands(self.workers), self._devices.left
        for number in range(self.workers):
            device, place = left[number % len(left)], len(self._workers)
            model = self._devices.models[device]
            worker = Worker(
                self._plan,
                model,
                self._batch,
                self._budget,
                self._run,
                spare,
                self._ending,
                f"worker-{place}",
                self._early,
            )
            self._workers.append(worker)
            yield place, worker, device

    def _left(self) -> list[Shard]:
        done = {commit.shard for commit in self._commits}
        return [shard for shard in self._open_shards if shard.number not in done]

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

    @property
    def notes(self) -> tuple[str, ...]:
        """Which devices were lost, and where batches had to become smaller."""
        return (*self._devices.notes, *self._batch.notes)

    @property
    def devices(self) -> tuple[DeviceUse, ...]:
        """How they were used so far."""
        return self._devices.use()

    def _work(self, worker: Worker, device: int, shards: Shards) -> None:
        try:
            self._devices.stay_near(device)
            for commit in worker.stream(shards):
                self._commits.append(commit)
        except (Stopped, Cancelled):
            return
        except DeviceLost as error:
            with self._lock:
                self._devices.lose(device, error)
                self.lost += 1
        except BaseException as error:  # handed over: run() raises it in the caller's thread
            with self._lock:
                self._error = self._error or error
            self._cancel()

    def _cancel(self) -> None:
        self._ending.set()
        for model in self._devices.models:
            model.cancel()

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        if any(thread.is_alive() for thread in threads):
            self._cancel()
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
            rows_in=self._former_rows + sum(w.rows_in for w in self._workers[self._former :]),
            rows_before=self._rows_before,
            quarantined=self._budget.spent,
            rows_total=self._rows_total,
            elapsed_s=elapsed_s,
            workers=self.workers,
            busy_s=self.busy_s,
            reads_ahead=self._reads_ahead,
            memory=resident_bytes(),
            retries=self.retries,
            devices=self.devices,
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
