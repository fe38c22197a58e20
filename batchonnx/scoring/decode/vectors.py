"""Vectors brought to length 1, and kept in fewer bits."""

from __future__ import annotations

import numpy as np

from batchonnx.job.spec import Precision

SMALLEST = 1e-12
"""Shorter vectors than this stay about as short as they are: torch's own limit."""

INT8_SCALE = 127


def normalized(values: np.ndarray) -> np.ndarray:
    """[..., k] over its length; float16 becomes float32. A vector with a NaN is all NaN."""
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    length = np.sqrt(np.sum(np.square(wide), axis=-1, keepdims=True))
    return np.asarray(wide / np.maximum(length, SMALLEST))


def packed(values: np.ndarray, precision: Precision) -> np.ndarray:
    """[..., k] as float16; as int8, times 127; or as uint8[..., ceil(k / 8)], a bit for each positive."""
    if precision == "binary":
        return np.packbits(values > 0, axis=-1)
    if precision == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    scaled = np.nan_to_num(np.rint(values * INT8_SCALE), nan=0.0)
    return np.asarray(np.clip(scaled, -INT8_SCALE, INT8_SCALE).astype(np.int8))
