"""Batches in flight on a device: each in a lane, with host buffers of its own.

While one batch computes, the next is copied to the device and the one before is decoded. Which worker's
batch takes which lane doesn't matter: a lane keeps nothing but memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import LifoQueue
from time import perf_counter
from typing import Any

import numpy as np

from batchonnx.runtime.cores import usable_cores
from batchonnx.runtime.device import Device
from batchonnx.runtime.pinned import Staging
from batchonnx.runtime.signature import ModelSignature

IN_FLIGHT = 3
"""Batches of a GPU at a time: one is copied to it, one computes, one comes back."""

MEMORY: Mapping[str, str] = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
}
"""Provider -> ONNX Runtime's name of its memory, where what it gives can stay between two sessions."""


@dataclass(frozen=True)
class Tail:
    """A small graph that goes on where a model ends, so that less comes back from the device.

    graph: ONNX, serialized. sources, fed: the model's outputs and inputs that it takes. outputs: what it
    gives.
    """

    graph: bytes
    sources: tuple[str, ...]
    fed: tuple[str, ...]
    outputs: tuple[str, ...]


class Lanes:
    """Runs one session on one device, for any number of threads; so many calls at a time as there are lanes.

    session: ONNX Runtime's own, or what is called like it. busy_s: seconds in which a call was in flight.
    count: of lanes; a device that computes on the machine's own cores takes a batch for each of them.
    """

    def __init__(self, session: Any, signature: ModelSignature, device: Device) -> None:
        self._session, self._device = session, device
        # Text and maps can't be bound, nor can several sessions in a row.
        specs = (*signature.inputs, *signature.outputs)
        are_numbers = all(spec.kind == "tensor" and spec.dtype != "string" for spec in specs)
        self._binds = hasattr(session, "io_binding") and are_numbers
        is_locked = MEMORY.get(device.provider) == "cuda"
        self._free: LifoQueue[Staging] = LifoQueue()  # the last one used: its buffers fit
        self.count = IN_FLIGHT if is_locked else max(IN_FLIGHT, usable_cores())
        for _ in range(self.count):
            self._free.put(Staging(is_locked=is_locked))
        self._in_flight, self._since, self._busy_s = 0, 0.0, 0.0
        self._lock = threading.Lock()

    @property
    def busy_s(self) -> float:
        """Until now."""
        with self._lock:
            return self._busy_s + (perf_counter() - self._since if self._in_flight else 0.0)

    @property
    def keeps(self) -> bool:
        """Whether what the session gives can stay on the device, for a tail."""
        return self._binds and self._device.provider in MEMORY

    def run(
        self,
        names: Sequence[str],
        tensors: Mapping[str, np.ndarray],
        options: Any,
        tail: tuple[Tail, Any] | None = None,
    ) -> list[Any]:
        """The outputs that are asked for, of the model or of the tail; see `Model.run`.

        tail: with its session. Raises what ONNX Runtime raises.
        """
        with self._lane() as staging:
            if not self._binds:
                return list(self._session.run(list(names), tensors, options))
            return self._bound(staging, names, tensors, options, tail)

    def _bound(
        self,
        staging: Staging,
        names: Sequence[str],
        tensors: Mapping[str, np.ndarray],
        options: Any,
        tail: tuple[Tail, Any] | None,
    ) -> list[Any]:
        staged = {name: staging.put(name, tensor) for name, tensor in tensors.items()}
        reduced = tail[0] if tail is not None else None
        asked = [name for name in names if reduced is None or name not in reduced.outputs]
        places = dict.fromkeys(asked, ("cpu", 0))
        for name in reduced.sources if reduced is not None else ():
            places.setdefault(name, (MEMORY[self._device.provider], self._device.index))
        # A fresh binding for each call: one that is used again gives the memory of its last outputs.
        binding = self._session.io_binding()
        for name, tensor in staged.items():
            _bind(binding, name, tensor)
        # Copies from page-locked memory are only queued by then, in another stream than the model's.
        binding.synchronize_inputs()
        for name, place in places.items():
            binding.bind_output(name, *place)
        self._session.run_with_iobinding(binding, options)
        values = dict(zip(places, binding.get_outputs(), strict=True))
        found = {name: values[name].numpy() for name in asked}
        if tail is not None:
            found |= _end(tail, values, staged, options)
        return [found[name] for name in names]

    @contextmanager
    def _lane(self) -> Iterator[Staging]:
        staging = self._free.get()
        with self._lock:
            if not self._in_flight:
                self._since = perf_counter()
            self._in_flight += 1
        try:
            yield staging
        finally:
            with self._lock:
                self._in_flight -= 1
                if not self._in_flight:
                    self._busy_s += perf_counter() - self._since
            self._free.put(staging)


def _bind(binding: Any, name: str, tensor: np.ndarray) -> None:
    binding.bind_input(name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.ctypes.data)


def _end(
    tail: tuple[Tail, Any], values: Mapping[str, Any], staged: Mapping[str, np.ndarray], options: Any
) -> dict[str, np.ndarray]:
    """What the tail makes of values that are on the device still."""
    reduced, session = tail
    binding = session.io_binding()
    for name in reduced.fed:
        _bind(binding, name, staged[name])
    binding.synchronize_inputs()
    for name in reduced.sources:
        binding.bind_ortvalue_input(name, values[name])
    for name in reduced.outputs:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding, options)
    found = zip(reduced.outputs, binding.get_outputs(), strict=True)
    return {name: value.numpy() for name, value in found}
