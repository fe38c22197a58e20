"""Scalar columns: one alone is viewed, several are interleaved into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import StackedScalars
from batchonnx.scoring.encode.columns import to_numpy

STRIP_BYTES = 512 << 10
"""Interleaved at a time, for one batch or several: with less, the calls of numpy cost more than
the copying; with more, the strip leaves the second cache before the model has read it."""


def scalars_loader(
    feature: StackedScalars, batch_rows: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]]:
    """chunk -> (start, stop) -> [n, k], or [n] for one column with row shape ()."""
    dtype = feature.input.dtype
    element = np.dtype(object if dtype == "string" else dtype)
    strip = Strip(len(feature.columns), element, batch_rows)

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        columns = [
            to_numpy(chunk.column(name), dtype, name, feature.fill, feature.cast) for name in feature.columns
        ]
        if len(columns) == 1:
            only = np.ascontiguousarray(columns[0]).reshape(-1, *feature.row_shape)
            return lambda start, stop: only[start:stop]
        strip.load(columns)
        return strip.rows

    return load


class Strip:
    """k columns interleaved some batches at a time, into memory that is used again.

    Through a contiguous [k, m] block, since writing each column straight into the rows misses
    the cache with every value (see docs/decisions/002-interleaving.md).
    """

    def __init__(self, width: int, element: np.dtype, batch_rows: int) -> None:
        batches = max(1, STRIP_BYTES // (width * element.itemsize) // batch_rows)
        self._block = np.empty((width, batches * batch_rows), element)
        self._out = np.empty((batches * batch_rows, width), element)
        self._columns: Sequence[np.ndarray] = ()
        self._first = self._end = 0

    def load(self, columns: Sequence[np.ndarray]) -> None:
        """Columns of one length and of the strip's type, in the order of the tensor's."""
        self._columns = columns
        self._first = self._end = 0

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, k], C-contiguous; valid until the next call."""
        if not self._first <= start <= stop <= self._end:
            self._fill(start)
        return self._out[start - self._first : stop - self._first]

    def _fill(self, first: int) -> None:
        length = min(len(self._out), len(self._columns[0]) - first)
        block = self._block[:, :length]
        for row, column in zip(block, self._columns, strict=True):
            row[:] = column[first : first + length]
        np.copyto(self._out[:length], block.T)
        self._first, self._end = first, first + length
