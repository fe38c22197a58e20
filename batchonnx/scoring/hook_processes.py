"""Hooks in processes of their own, so that slow Python holds up neither workers nor other hooks.

Rows and tensors travel as Arrow streams; only what a hook has raised is pickled. The checks of what a hook
returns are made where it runs.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pyarrow as pa

from batchonnx.errors import BatchonnxError
from batchonnx.planning.bindings import HookFeature, OutputBinding
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.plan import Plan
from batchonnx.runtime.child import Child, ChildDied, Pipe
from batchonnx.runtime.session import ProcessDied
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.decode.hook import RemoteColumn, column_of
from batchonnx.scoring.encode.hook import RemoteHook, hook_failed, tensors_of
from batchonnx.scoring.stream import arrays_of, from_bytes, of_arrays, to_bytes

_HOOK = b"hook"
"""In a stream's metadata: which hook it is for."""


class HookProcesses:
    """`count` processes, each with all of a plan's hooks; started when first asked, again after a death."""

    def __init__(self, plan: Plan, count: int) -> None:
        asked = plan.job.folder, _features(plan), _outputs(plan)
        self._setup, self._count = pickle.dumps(asked), count
        self._pool = ThreadPoolExecutor(count, "hooks")
        self._idle: SimpleQueue[Child | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def feature(self, feature: HookFeature) -> RemoteHook:
        """What encodes rows: a future with a tensor for each of the feature's inputs.

        It raises what the hook in this process would, and ProcessDied.
        """

        def begin(rows: pa.RecordBatch) -> Future[dict[str, np.ndarray]]:
            return self._pool.submit(lambda: arrays_of(self._ask(feature.function, feature.name, rows)))

        return RemoteHook(begin, self._count)

    def output(self, binding: OutputBinding) -> RemoteColumn:
        """What makes a column of a batch's outputs; see `feature`."""

        def begin(values: Sequence[np.ndarray]) -> Future[pa.Array]:
            sent = of_arrays({str(place): value for place, value in enumerate(values)})
            return self._pool.submit(
                lambda: self._ask(binding.function or "", f"outputs.{binding.name}", sent).column(0)
            )

        return RemoteColumn(begin)

    def close(self) -> None:
        """End the processes; what is asked of them meanwhile fails."""
        self._pool.shutdown(cancel_futures=True)
        for _ in range(self._count):
            child = self._idle.get()
            if child is not None:
                child.end()

    def _ask(self, function: str, hook: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        child = self._idle.get()
        try:
            if child is None:
                child = Child("batchonnx.scoring.hook_process")
                child.send(self._setup)
            told = {**(rows.schema.metadata or {}), _HOOK: hook.encode()}
            child.send(to_bytes(rows.replace_schema_metadata(told)))
            answer = child.receive()
        except ChildDied as death:
            child = None
            raise ProcessDied(f"the hook {function} ended its process: {death}") from None
        finally:
            self._idle.put(child)
        if answer[:1] == b"!":
            raise pickle.loads(answer[1:])
        return from_bytes(answer[1:])


_running: dict[str, tuple[HookProcesses, int]] = {}
"""Fingerprint -> processes, and how many runs of this process use them."""
_lock = threading.Lock()


@contextmanager
def hook_processes(plan: Plan) -> Iterator[None]:
    """While this lasts, hooks of the plan run in as many processes as the job asks for, if for any."""
    count = plan.job.job.engine.hook_processes
    if not count or not (_features(plan) or _outputs(plan)):
        yield
        return
    with _lock:
        processes, users = _running.get(plan.fingerprint) or (HookProcesses(plan, count), 0)
        _running[plan.fingerprint] = processes, users + 1
    try:
        yield
    finally:
        with _lock:
            processes, users = _running.pop(plan.fingerprint)
            if users > 1:
                _running[plan.fingerprint] = processes, users - 1
        if users == 1:
            processes.close()


def running_hooks(plan: Plan) -> HookProcesses | None:
    """The processes that the plan's hooks are to run in; None: this one."""
    found = _running.get(plan.fingerprint)
    return found[0] if found is not None else None


def _features(plan: Plan) -> list[HookFeature]:
    return [feature for feature in plan.features if isinstance(feature, HookFeature)]


def _outputs(plan: Plan) -> list[OutputBinding]:
    """Maps stay here: they are no arrays."""
    return [one for one in plan.outputs if one.function is not None and one.source.kind == "tensor"]


def serve(pipe: Pipe) -> None:
    """In a child: answer until the other end is closed."""
    folder, features, outputs = pickle.loads(pipe.recv_bytes())
    hooks: dict[str, Callable[[pa.RecordBatch], pa.RecordBatch]] = {}
    while True:
        try:
            rows = from_bytes(pipe.recv_bytes())
        except EOFError:
            return
        name = (rows.schema.metadata or {}).get(_HOOK, b"").decode()
        try:
            if not hooks:
                hooks = _load(folder, features, outputs)
            answer = b"." + to_bytes(hooks[name](rows))
        except Exception as error:  # handed over: the other end raises it
            answer = b"!" + pickle.dumps(_portable(error))
        except KeyboardInterrupt as error:  # the hook's own: this process is told of no key
            answer = b"!" + pickle.dumps(hook_failed(name, error))
        pipe.send_bytes(answer)


def _load(
    folder: Path, features: Sequence[HookFeature], outputs: Sequence[OutputBinding]
) -> dict[str, Callable[[pa.RecordBatch], pa.RecordBatch]]:
    hooks: dict[str, Callable[[pa.RecordBatch], pa.RecordBatch]] = {}
    for feature in features:
        function = load_hook(feature.function, folder, f"features.{feature.name}.python")
        hooks[feature.name] = partial(_encode, feature, function)
    for binding in outputs:
        where = f"outputs.{binding.name}"
        function = load_hook(binding.function or "", folder, f"{where}.python")
        hooks[where] = partial(_decode, binding, function)
    return hooks


def _encode(feature: HookFeature, function: Callable[..., object], rows: pa.RecordBatch) -> pa.RecordBatch:
    return of_arrays(tensors_of(feature, function, rows.replace_schema_metadata(None)))


def _decode(binding: OutputBinding, function: Callable[..., object], sent: pa.RecordBatch) -> pa.RecordBatch:
    column = column_of(binding, function, list(arrays_of(sent).values()))
    return pa.RecordBatch.from_arrays([column], names=[binding.name])


def _portable(error: Exception) -> Exception:
    """What can be pickled of an error: all of our own."""
    is_ours = isinstance(error, BatchonnxError | BadRow)
    return error if is_ours else RuntimeError(f"{type(error).__name__}: {error}")
