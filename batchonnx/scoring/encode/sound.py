"""One sound: from encoded bytes to samples, and to windows of them."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import soundfile
import soxr

from batchonnx.planning.bindings import Sound
from batchonnx.scoring.encode.blobs import Undecodable


def read_samples(data: memoryview | bytes, want: Sound) -> np.ndarray:
    """float32[samples], never none; full scale is 1. Other threads run meanwhile.

    Raises Undecodable with the reason.
    """
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            seconds = file.frames / file.samplerate
            if seconds > want.max_seconds:
                raise Undecodable(
                    f"{seconds:,.1f} s, at most {want.max_seconds:,} s are decoded (max_seconds)"
                )
            found, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # of a broken file: whatever its decoder raises
        begins = f"it begins with {bytes(data[:12])!r}"
        raise Undecodable(f"no sound that can be decoded: {_told(error)}; {begins}") from None
    if not len(found):
        raise Undecodable("a sound of no length")
    mono = found[:, 0] if want.first_channel or found.shape[1] == 1 else found.mean(axis=1)
    if rate != want.rate:
        mono = soxr.resample(np.ascontiguousarray(mono), rate, want.rate)
        if not len(mono):
            raise Undecodable(f"a sound of no length at {want.rate} Hz")
    if not np.isfinite(mono).all():
        raise Undecodable("samples that are no numbers")
    if want.normalize:
        mono = (mono - mono.mean()) / np.sqrt(mono.var() + 1e-7)
    return np.asarray(mono)


def _told(error: Exception) -> str:
    """Without where in memory the bytes were: a reason is the same each time."""
    return re.sub(r"Error opening <\S+ object at 0x\w+>: ", "", str(error)) or type(error).__name__


def cut(samples: np.ndarray, length: int) -> np.ndarray:
    """float32[length]: the first so many, silence behind them."""
    out = np.zeros(length, samples.dtype)
    out[: len(samples)] = samples[:length]
    return out


def windows(samples: np.ndarray, want: Sound) -> np.ndarray:
    """[windows, context + window]: at least one, the last one filled up with silence."""
    assert want.window is not None
    count = max(1, -(-(len(samples) - want.window) // want.hop) + 1)
    padded = np.zeros(want.context + (count - 1) * want.hop + want.window, samples.dtype)
    used = samples[: len(padded) - want.context]
    padded[want.context : want.context + len(used)] = used
    view = np.lib.stride_tricks.sliding_window_view(padded, want.context + want.window)
    return view[:: want.hop]
