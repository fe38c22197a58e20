"""Host memory that a CUDA device copies from by itself: page-locked, where CUDA's runtime is loaded."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

import numpy as np

_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
"""Looked for among the libraries that the execution provider has loaded: none is loaded for this."""

_PORTABLE = 1
"""Page-locked for the contexts of all devices."""


class Staging:
    """Buffers that tensors are copied to before a call, used again for the next; of one lane.

    is_locked: whether their memory is to be page-locked, where it can be: what isn't is only slower.
    """

    def __init__(self, *, is_locked: bool) -> None:
        self._is_locked = is_locked
        self._buffers: dict[str, np.ndarray] = {}

    def put(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """A copy of a tensor of numbers, in this input's buffer; valid until the input's next."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < tensor.nbytes:
            # Powers of two: locking takes longer than copying, and shapes vary.
            buffer = _pages(1 << (max(tensor.nbytes, mmap.PAGESIZE) - 1).bit_length(), self._is_locked)
            self._buffers[name] = buffer
        staged = buffer[: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
        np.copyto(staged, tensor)
        return staged


def _pages(size: int, is_locked: bool) -> np.ndarray:
    """uint8[size], at the begin of a page."""
    buffer = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    runtime = cuda_runtime() if is_locked else None
    # ctypes lets go of the interpreter during the call.
    if runtime is not None and runtime.cudaHostRegister(_at(buffer), ctypes.c_size_t(size), _PORTABLE) == 0:
        weakref.finalize(buffer, runtime.cudaHostUnregister, _at(buffer))
    return buffer


def _at(buffer: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(buffer.ctypes.data)


def cuda_runtime() -> ctypes.CDLL | None:
    """CUDA's, if an execution provider has loaded it."""
    for name in _RUNTIMES:
        try:
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except (OSError, AttributeError):  # AttributeError: not on this system
            continue
    return None
