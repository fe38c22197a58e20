"""Devices that aren't there: ONNX Runtime's sessions on its CPU, which fail as a GPU's do.

One seam, below all of our code: `onnxruntime.InferenceSession`. What is opened for CUDA computes on the CPU,
real bindings and all, with a device's memory, loss and time of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from batchonnx.runtime.cuda import Driver, Gpu

CUDA = "CUDAExecutionProvider"

NO_MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:395 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate "
    "memory for requested buffer of size {size}"
)
LOST = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 214: uncorrectable ECC error encountered ; GPU={index} ; "
    "hostname=host ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; "
    "line=481 ; expr=cudaStreamSynchronize(static_cast<cudaStream_t>(stream_)); "
)


@dataclass
class FakeDevice:
    """A device.

    memory: bytes of inputs that all calls in flight may have. lost_at: from this call on it is gone.
    row_s, call_s: what each row and each call take. calls: how many there were. most: bytes at the same time.
    rows: of each call.
    """

    index: int = 0
    memory: int | None = None
    lost_at: int | None = None
    row_s: float = 0.0
    call_s: float = 0.0
    calls: int = 0
    used: int = 0
    most: int = 0
    rows: list[int] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def run(self, shapes: Sequence[tuple[int, ...]], nbytes: int, call: Callable[[], Any]) -> Any:
        """A call of a session that is on this device."""
        with self._lock:
            self.calls += 1
            if self.lost_at is not None and self.calls >= self.lost_at:
                raise Fail(LOST.format(index=self.index))
            if self.memory is not None and self.used + nbytes > self.memory:
                raise Fail(NO_MEMORY.format(size=nbytes))
            self.used += nbytes
            self.most = max(self.most, self.used)
            rows = max((shape[0] for shape in shapes if shape), default=0)
            self.rows.append(rows)
        try:
            time.sleep(self.call_s + rows * self.row_s)
            return call()
        finally:
            with self._lock:
                self.used -= nbytes


class _Binding:
    """A real binding, whose memory on the device is the CPU's."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.shapes: list[tuple[int, ...]] = []
        self.nbytes = 0

    def bind_input(
        self, name: str, memory: str, index: int, dtype: Any, shape: tuple[int, ...], at: int
    ) -> None:
        self.shapes.append(shape)
        self.nbytes += int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.real.bind_input(name, memory, 0, dtype, shape, at)

    def bind_output(self, name: str, memory: str = "cpu", index: int = 0) -> None:
        assert memory in ("cpu", "cuda")
        self.real.bind_output(name, "cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Session:
    """A session for one device."""

    def __init__(self, real: Any, device: FakeDevice) -> None:
        self.real, self.device = real, device

    def run(self, names: Sequence[str] | None, tensors: Mapping[str, np.ndarray], options: Any = None) -> Any:
        arrays = [np.asarray(tensor) for tensor in tensors.values()]
        nbytes = sum(array.nbytes for array in arrays)
        shapes = [array.shape for array in arrays]
        return self.device.run(shapes, nbytes, lambda: self.real.run(names, tensors, options))

    def io_binding(self) -> _Binding:
        return _Binding(self.real.io_binding())

    def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
        call = lambda: self.real.run_with_iobinding(binding.real, options)  # noqa: E731
        self.device.run(binding.shapes, binding.nbytes, call)

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def use_devices(monkeypatch: Any, *devices: FakeDevice) -> None:
    """Have ONNX Runtime find these devices, and no others, for CUDA."""
    real = onnxruntime.InferenceSession
    gpus = tuple(Gpu(f"Fake {index}", 1 << 30) for index in range(len(devices)))
    monkeypatch.setattr("batchonnx.runtime.session.require_device", lambda device: None)
    monkeypatch.setattr("batchonnx.runtime.cuda.read_driver", lambda: Driver((13, 0), gpus))
    for index, device in enumerate(devices):
        device.index = index

    def opened(model: Any, options: Any = None, providers: Sequence[Any] = (), **rest: Any) -> Any:
        options = rest.pop("sess_options", options)
        names = [one if isinstance(one, str) else one[0] for one in providers]
        session = real(model, options, providers=["CPUExecutionProvider"], **rest)
        if CUDA not in names:
            return session
        asked = next(one for one in providers if CUDA in one)
        index = int(asked[1].get("device_id", 0)) if not isinstance(asked, str) else 0
        if index >= len(devices):
            raise Fail(f"CUDA failure 101: invalid device ordinal ; GPU={index}")
        return _Session(session, devices[index])

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
