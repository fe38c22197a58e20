"""Scalar columns: one alone is viewed, several are interleaved into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from batchonnx.plan.bindings import StackedScalars
from batchonnx.scoring.encode.columns import to_numpy

BLOCK_ROWS = 4096
"""Rows interleaved at a time: the block of all columns stays in the second cache."""


def scalars_loader(
    feature: StackedScalars, batch_rows: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]]:
    """chunk -> (start, stop) -> [n, k], or [n] for one column with row shape ()."""
    dtype = feature.input.dtype
    width = len(feature.columns)
    element = np.dtype(object if dtype == "string" else dtype)
    block = np.empty((width, min(batch_rows, BLOCK_ROWS)), element)
    out = np.empty((batch_rows, width), element)

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        columns = [
            to_numpy(chunk.column(name), dtype, name, feature.fill, feature.cast) for name in feature.columns
        ]
        if width == 1:
            only = np.ascontiguousarray(columns[0]).reshape(-1, *feature.row_shape)
            return lambda start, stop: only[start:stop]
        return lambda start, stop: interleave(columns, start, stop, block, out)

    return load


def interleave(
    columns: list[np.ndarray], start: int, stop: int, block: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Rows start to stop of k columns as the first rows of a reused buffer.

    columns: k arrays of one dtype. block: [k, m] scratch. out: [at least stop - start, k].
    Through the contiguous block, since writing each column straight into `out` misses the cache
    with every value (see docs/decisions/002-interleaving.md).
    """
    step = block.shape[1]
    for first in range(start, stop, step):
        length = min(step, stop - first)
        part = block[:, :length]
        for row, column in zip(part, columns, strict=True):
            row[:] = column[first : first + length]
        np.copyto(out[first - start : first - start + length], part.T)
    return out[: stop - start]
