"""What runs in an actor: a worker as on a laptop, fed and asked by the driver in short turns."""

from __future__ import annotations

import os
import pickle
import platform
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from batchonnx.engines.ray.canary import few
from batchonnx.engines.ray.model_cache import drop, local_model
from batchonnx.engines.spare import SpareHands
from batchonnx.engines.worker import Worker
from batchonnx.errors import BatchonnxError, DeviceError, InputError, Problem, StorageError
from batchonnx.ledger.output import Ticket
from batchonnx.ledger.process import this_machine
from batchonnx.ledger.records import Commit
from batchonnx.planning.devices import device_notes
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard
from batchonnx.planning.stores import use_stores
from batchonnx.runtime.chain import open_again
from batchonnx.runtime.lanes import IN_FLIGHT
from batchonnx.runtime.machine import resident_bytes
from batchonnx.runtime.parent import end_with_parent
from batchonnx.runtime.session import DeviceLost, Model
from batchonnx.runtime.signature import ModelSignature
from batchonnx.runtime.wheels import WHEELS
from batchonnx.scoring.hook_processes import hook_processes
from batchonnx.scoring.probe import BatchSize, Lesson
from batchonnx.scoring.progress import STAGES
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import read_chunks
from batchonnx.scoring.scorer import Scorer
from batchonnx.scoring.stream import from_bytes, to_bytes
from batchonnx.storage.s3_requests import retries_made

LIBRARIES = ("batchonnx", *WHEELS, "pyarrow", "numpy")
"""Whose versions have to be the driver's."""

LOOKED_AT = 8
"""Chunks of a shard in which the first rows are looked for, where a filter leaves few."""


@dataclass(frozen=True)
class Setup:
    """What every actor of a run is told.

    threads: of one session. most, rows_total, spent: see `ErrorBudget`.
    """

    plan: Plan
    ticket: Ticket
    threads: int
    most: int | str
    rows_total: int | None
    spent: int
    suspects: frozenset[int]


@dataclass(frozen=True)
class Hello:
    """Who an actor is. node: its id. versions: library -> version, absent ones left out."""

    host: str
    machine: str
    node: str
    pid: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Entered:
    """An actor takes part in the run; or trouble: why it can't. notes: what the user should know."""

    notes: Sequence[str] = ()
    trouble: BaseException | None = None


@dataclass(frozen=True)
class First:
    """What the first rows of a shard have taught, and a few of them; rows: None if there are none."""

    lesson: Lesson | None = None
    rows: bytes | None = None
    trouble: BaseException | None = None


@dataclass(frozen=True)
class Answer:
    """An actor's predictions for the canary; None where there was none."""

    answer: bytes | None = None
    trouble: BaseException | None = None


@dataclass(frozen=True)
class Orders:
    """A turn. shards: to be scored next. suspects: shards that are to be scored apart.

    wait_s, enough: answer when so many shards are done, or so much time has passed. gives_back: take
    nothing up any more, and give back what wasn't begun.
    """

    shards: Sequence[int]
    suspects: frozenset[int]
    wait_s: float
    enough: int
    gives_back: bool = False


@dataclass(frozen=True)
class Report:
    """What came of a turn; sums are since the actor's start.

    busy_s: stage -> seconds. first_s: how long ago the first batch was predicted. memory: bytes that its
    process has resident. retries: requests to a store that were sent again.
    """

    commits: Sequence[Commit] = ()
    returned: Sequence[int] = ()
    rows_in: int = 0
    calls: int = 0
    halved: int = 0
    busy_s: Mapping[str, float] = field(default_factory=dict)
    first_s: float | None = None
    memory: int = 0
    retries: int = 0
    trouble: BaseException | None = None


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide a result's bytes, here."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


class Inbox:
    """Shards that the driver has handed out; see `worker.Shards`."""

    def __init__(self) -> None:
        self._shards: deque[Shard] = deque()
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Shard]:
        return self

    def __next__(self) -> Shard:
        with self._changed:
            self._changed.wait_for(lambda: self._shards)
            return self._shards.popleft()

    @property
    def is_ready(self) -> bool:
        """Whether there is one."""
        return bool(self._shards)

    def put(self, shards: Sequence[Shard]) -> None:
        """Hand out more."""
        with self._changed:
            self._shards.extend(shards)
            self._changed.notify()

    def clear(self) -> list[int]:
        """Take back what wasn't begun."""
        with self._changed:
            numbers = [shard.number for shard in self._shards]
            self._shards.clear()
            return numbers


class Actor:
    """One worker of a run, in a process of its own. No method raises: trouble is in what it gives back."""

    def __init__(self) -> None:
        end_with_parent()
        _hide_gpus()
        self._inbox = Inbox()
        self._made: list[Commit] = []
        self._trouble: BaseException | None = None
        self._changed = threading.Condition()
        self._workers: list[Worker] = []
        self._for_life = ExitStack()

    def hello(self) -> Hello:
        """Say who it is, as soon as all is imported; the run's plan may not be there yet."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Hello(socket.gethostname(), this_machine(), node, os.getpid(), versions())

    def enter(self, setup: Sequence[Any], files: Sequence[Any]) -> Entered:
        """Take part in a run. setup, files: one reference each, to a `Setup` and to a model's files.

        In lists, so that Ray doesn't fetch them: the files are asked for by the first actor of a machine.
        """
        notes: list[str] = []
        trouble = self._caught(lambda: notes.extend(self._enter(setup[0], files[0])))
        return Entered(notes, trouble)

    def first(self, shard: int, measured: int | None) -> First:
        """Look at the first rows of a shard: they settle the batch size. measured: what is known of it."""
        found: list[First] = []

        def look() -> None:
            found.append(self._look_at(self._shards[shard], measured))

        trouble = self._caught(look)
        return First(trouble=trouble) if trouble is not None else found[0]

    def begin(self, lesson: Lesson, rows: bytes | None) -> Answer:
        """Be ready for shards. rows: the canary's, to be scored first."""
        answers: list[bytes | None] = []

        def start() -> None:
            scorer = Scorer(self._plan, self._model, lesson.batch_rows)
            answers.append(to_bytes(scorer.attempt(from_bytes(rows))) if rows is not None else None)
            self._start(lesson)

        trouble = self._caught(start)
        return Answer(trouble=trouble) if trouble is not None else Answer(answers[0])

    def turn(self, orders: Orders) -> Report:
        """Take shards; give what is done."""
        workers = self._workers
        assert workers, "begin comes first"
        self._suspects |= orders.suspects
        self._inbox.put([self._shards[number] for number in orders.shards])
        returned = self._inbox.clear() if orders.gives_back else []
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._made) >= orders.enough or self._trouble is not None,
                0.0 if returned else orders.wait_s,
            )
            made, self._made = self._made, []
            trouble = self._trouble
        first = [worker.first_at for worker in workers if worker.first_at is not None]
        return Report(
            commits=made,
            returned=returned,
            rows_in=sum(worker.rows_in for worker in workers),
            calls=sum(worker.calls for worker in workers),
            halved=sum(worker.halved for worker in workers),
            busy_s={stage: sum(worker.busy_s[stage] for worker in workers) for stage in STAGES},
            first_s=perf_counter() - min(first) if first else None,
            memory=resident_bytes(),
            retries=retries_made(),
            trouble=trouble,
        )

    def _enter(self, setup: Any, files: Any) -> list[str]:
        import ray

        told: Setup = ray.get(setup)
        self._setup = told
        self._shards: Mapping[int, Shard] = {shard.number: shard for shard in told.plan.shards}
        self._suspects = set(told.suspects)
        use_stores(told.plan.job)
        self._model, self._plan = _open_model(told.plan, told.threads, lambda: ray.get(files))
        notes = device_notes(told.plan.job, told.plan.device, None, self._model.placement)
        _require_input(told.plan)
        self._for_life.enter_context(hook_processes(self._plan))
        Scorer(self._plan, self._model, 1)  # imports the hooks
        self._scoring = told.ticket.enter(self._suspects)
        return notes

    def _look_at(self, shard: Shard, measured: int | None) -> First:
        plan = self._plan
        chunks = read_chunks(shard, plan.listing, plan.columns, plan.filter, plan.whole_rows, plan.chunk_rows)
        for _, chunk in zip(range(LOOKED_AT), chunks, strict=False):
            if chunk.columns.num_rows:
                batch = BatchSize(plan, self._model, measured)
                batch.settle(chunk)
                rows = few(chunk.columns)
                return First(batch.lesson, to_bytes(rows) if rows.num_rows else None)
        return First()

    def _start(self, lesson: Lesson) -> None:
        told = self._setup
        budget = ErrorBudget(told.most, told.rows_total, told.spent)
        batch = BatchSize(self._plan, self._model, lesson=lesson)
        spare, stop = SpareHands(1), threading.Event()
        name = f"worker-{os.getpid()}"
        # The shards are the first one's; others score batches of its chunks, so that several are in flight.
        count = IN_FLIGHT if self._model.lanes is not None else 1
        self._workers = [
            Worker(self._plan, self._model, batch, budget, self._scoring, spare, stop, name)
            for _ in range(count)
        ]
        threading.Thread(target=self._work, args=(self._workers[0],), name=name, daemon=True).start()
        for worker in self._workers[1:]:
            threading.Thread(target=_lend, args=(worker,), name=f"{name}-lent", daemon=True).start()

    def _work(self, worker: Worker) -> None:
        try:
            for commit in worker.stream(self._inbox):
                with self._changed:
                    self._made.append(commit)
                    self._changed.notify()
        except DeviceLost:
            # Nothing runs here any more: the driver gives its shards to others, as after any death.
            traceback.print_exc()
            os._exit(1)
        except BaseException as error:  # handed over: the driver raises it
            with self._changed:
                self._trouble = _portable(error)
                self._changed.notify()

    def _caught(self, do: Callable[[], None]) -> BaseException | None:
        try:
            do()
        except BaseException as error:  # handed over: the driver raises it
            return _portable(error)
        return None


def _lend(worker: Worker) -> None:
    """A device that is lost is the first worker's to tell of."""
    with suppress(DeviceLost):
        worker.lend()


def _hide_gpus() -> None:
    """An actor that Ray has given no GPU would see them all."""
    import ray

    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _open_model(plan: Plan, threads: int, fetch: Callable[[], Any]) -> tuple[Model, Plan]:
    """The model as this machine has it, and the plan that names it there."""
    digests = [model.digest for model in plan.model.files]
    try:
        here = _named_here(plan.model, fetch)
        model = open_again(here, threads, plan.device)
    except DeviceError:
        raise
    except BatchonnxError:
        for digest in digests:
            drop(digest)  # somebody has been at it
        here = _named_here(plan.model, fetch)
        model = open_again(here, threads, plan.device)
    except OSError as error:
        facts = {"model": plan.model.path, "found": str(error)}
        fix = "free some space, or set TMPDIR for the cluster's nodes"
        raise StorageError(Problem("the model can't be kept on this machine", facts, fix)) from error
    return model, replace(plan, model=here)


def _named_here(model: ModelSignature, fetch: Callable[[], Any]) -> ModelSignature:
    """The same model, or chain, with the paths that this machine has its files at."""
    together = len(model.files)

    def here(single: ModelSignature) -> ModelSignature:
        path = local_model(single.digest, lambda: fetch()[single.digest], together=together)
        return replace(single, path=str(path))

    if not model.members:
        return here(model)
    return replace(
        model, members=tuple(replace(member, model=here(member.model)) for member in model.members)
    )


def _require_input(plan: Plan) -> None:
    """Raises InputError if a local input isn't there, as on another machine than the driver's."""
    path = next((file.path for file in plan.listing.files if "://" not in file.path), None)
    if path is not None and not Path(path).exists():
        facts = {"file": path}
        fix = "name a store (s3://…) or a folder that all machines share, in input.path"
        raise InputError(Problem("the input isn't on every machine of the cluster", facts, fix))


def _portable(error: BaseException) -> BaseException:
    """An error that can be pickled, with where it was raised as a note if it is a bug's."""
    if not isinstance(error, BatchonnxError):
        error.add_note("in a worker: " + "".join(traceback.format_exception(error)))
    try:
        copy: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:
        # Whatever a foreign class does when it is pickled.
        return RuntimeError("".join(traceback.format_exception(error)))
    return copy if isinstance(copy, type(error)) else RuntimeError(str(error))


def model_files(local: Path, external: Sequence[str], name: str) -> dict[str, np.ndarray]:
    """A model's bytes and those of the files beside it, as memory that Ray copies once."""
    found = {name: np.fromfile(local, np.uint8)}
    return found | {beside: np.fromfile(local.parent / beside, np.uint8) for beside in external}
