"""NVIDIA's driver, asked directly: which GPUs there are, before anything of CUDA's is loaded.

libcuda numbers GPUs as ONNX Runtime does: from 0, of those that CUDA_VISIBLE_DEVICES leaves.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100


class NoDriver(Exception):
    """The driver isn't there (code 0), or doesn't start; code: CUDA's."""

    def __init__(self, code: int, told: str) -> None:
        super().__init__(told)
        self.code = code


@dataclass(frozen=True)
class Gpu:
    """total_bytes: of its memory. bus: its address on the PCI bus, in lower case; empty if unknown."""

    name: str
    total_bytes: int
    bus: str = ""


@dataclass(frozen=True)
class Driver:
    """cuda: the newest version of CUDA that it knows, as (major, minor)."""

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def read_driver() -> Driver:
    """Ask libcuda; about 0.1 s where there are GPUs. Raises NoDriver."""
    cuda = _start()
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    gpus = tuple(_gpu(cuda, index) for index in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus)


def gpu_name(index: int) -> str:
    """Of one of them; empty if the driver doesn't tell."""
    try:
        return read_driver().gpus[index].name
    except (NoDriver, IndexError):
        return ""


def free_bytes(index: int) -> int:
    """Memory of a GPU that nobody has taken yet. Raises NoDriver.

    It is asked in the context that ONNX Runtime's session will be in, which stays for that.
    """
    cuda = _start()
    context = ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _call(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(index))
    _call(cuda, "cuCtxPushCurrent_v2", context)
    try:
        _call(cuda, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    finally:
        _call(cuda, "cuCtxPopCurrent_v2", ctypes.byref(context))
    return free.value


def _start() -> ctypes.CDLL:
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NoDriver(0, str(error)) from error
    _call(cuda, "cuInit", ctypes.c_uint(0))
    return cuda


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    name, total, device = ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_int()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
    _call(cuda, "cuDeviceGetName", name, ctypes.c_int(len(name)), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(total), device)
    bus = ctypes.create_string_buffer(32)
    _call(cuda, "cuDeviceGetPCIBusId", bus, ctypes.c_int(len(bus)), device)
    return Gpu(name.value.decode(errors="replace"), total.value, bus.value.decode().lower())


def _call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = int(getattr(cuda, name)(*arguments))
    if code != 0:
        raise NoDriver(code, f"{name} answers {code}")
