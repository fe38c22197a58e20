"""Scalar columns: one alone is viewed, several are interleaved into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import StackedScalars
from batchonnx.scoring.encode.columns import is_as_needed, to_numpy

STRIP_BYTES = 512 << 10
"""Interleaved at a time, for one batch or several: with less, the calls cost more than the
copying; with more, the strip leaves the second cache before the model has read it."""


def scalars_loader(
    feature: StackedScalars, batch_rows: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]]:
    """chunk -> (start, stop) -> [n, k], or [n] for one column with row shape ()."""
    dtype, width = feature.input.dtype, len(feature.columns)

    def values_of(column: pa.Array, name: str) -> np.ndarray:
        return to_numpy(column, dtype, name, feature.fill, feature.cast)

    def columns_of(chunk: pa.RecordBatch) -> list[np.ndarray]:
        return [values_of(chunk.column(name), name) for name in feature.columns]

    def load_one(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        (column,) = columns_of(chunk)
        only = np.ascontiguousarray(column).reshape(-1, *feature.row_shape)
        return lambda start, stop: only[start:stop]

    def load_text(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        columns = columns_of(chunk)
        return lambda start, stop: np.stack([column[start:stop] for column in columns], axis=1)

    def load_many(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        strip.load([as_arrow(chunk.column(name), name) for name in feature.columns])
        return strip.rows

    def as_arrow(column: pa.Array, name: str) -> pa.Array:
        if dtype == "bool":  # Arrow's are bits: as bytes they are taken as they are
            return pa.array(values_of(column, name).view(np.uint8))
        return column if is_as_needed(column, dtype) else pa.array(values_of(column, name))

    if width == 1:
        return load_one
    if dtype == "string":
        return load_text
    strip = Strip(width, np.dtype(dtype), batch_rows)
    return load_many


SHIFT_BYTES = 128
"""Columns of a power of two of bytes fall on the same few cache lines while they are transposed: the block's
are longer by two lines, which takes a quarter of the time."""


class Strip:
    """k columns of numbers interleaved some batches at a time, into memory that is used again.

    By two calls that let other threads run: Arrow copies the columns' slices into a contiguous
    [k, m] block, numpy transposes it (see docs/decisions/002-interleaving.md).
    """

    def __init__(self, width: int, element: np.dtype, batch_rows: int) -> None:
        batches = max(1, STRIP_BYTES // (width * element.itemsize) // batch_rows)
        self._rows = batches * batch_rows
        self._out = np.empty((0, width), element)
        self._shift = SHIFT_BYTES // element.itemsize
        self._names = [str(index) for index in range(width)]
        self._columns = pa.RecordBatch.from_arrays([], names=[])
        self._first = self._end = 0

    def load(self, columns: Sequence[pa.Array]) -> None:
        """Columns of one length and of the strip's type, booleans as bytes, in the tensor's order."""
        self._columns = pa.RecordBatch.from_arrays(columns, names=self._names)
        self._first = self._end = 0
        # A job may allow batches that are larger than any chunk.
        if len(self._out) < (rows := min(self._rows, self._columns.num_rows)):
            self._out = np.empty((rows, self._out.shape[1]), self._out.dtype)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, k], C-contiguous; valid until the next call."""
        if not self._first <= start <= stop <= self._end:
            self._fill(start)
        return self._out[start - self._first : stop - self._first]

    def _fill(self, first: int) -> None:
        end = min(first + len(self._out), self._columns.num_rows)
        begin = max(0, min(first, self._columns.num_rows - (end - first) - self._shift))
        columns = self._columns.slice(begin, end - first + self._shift)
        block = columns.to_tensor(row_major=False).to_numpy()[first - begin : end - begin]
        np.copyto(self._out[: end - first], block.view(self._out.dtype))
        self._first, self._end = first, end
