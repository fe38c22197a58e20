"""A few rows that every worker scores before it gets any: one that finds something else is no worker."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

ROWS, BYTES = 32, 1 << 20
RELATIVE, OF_LARGEST = 1e-3, 1e-4
"""Kinds of CPU add up in different orders; a model that is quantized or in half precision shows it most."""


def few(columns: pa.RecordBatch) -> pa.RecordBatch:
    """The first rows, as far as they are small; none where the first one isn't."""
    rows = min(ROWS, columns.num_rows)
    while rows and columns.slice(0, rows).nbytes > BYTES:
        rows //= 2
    return columns.slice(0, rows)


def difference(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> str | None:
    """What differs, in a few words; None if nothing does but the last digits of floats."""
    if ours.schema != theirs.schema or ours.num_rows != theirs.num_rows:
        return f"{theirs.num_rows} rows of {theirs.schema.names}"
    for name, one, other in zip(ours.schema.names, ours.columns, theirs.columns, strict=True):
        if not _is_close(one, other):
            return f"{name}: {_shown(other)}, not {_shown(one)}"
    return None


def _is_close(one: pa.Array, other: pa.Array) -> bool:
    if one.equals(other):
        return True
    if pat.is_fixed_size_list(one.type) or pat.is_list(one.type) or pat.is_large_list(one.type):
        return _is_close(one.flatten(), other.flatten()) if len(one) == len(other) else False
    if pat.is_struct(one.type):
        return all(map(_is_close, one.flatten(), other.flatten()))
    if isinstance(one, pa.ExtensionArray):
        return _is_close(one.storage, other.storage)
    if not pat.is_floating(one.type) or len(one) != len(other):
        return False
    a, b = (array.to_numpy(zero_copy_only=False).astype(np.float64) for array in (one, other))
    largest = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    return bool(np.allclose(b, a, rtol=RELATIVE, atol=OF_LARGEST * largest, equal_nan=True))


def _shown(column: pa.Array) -> str:
    text = str(column[:3].to_pylist())
    return text if len(text) <= 80 else text[:79] + "…"
