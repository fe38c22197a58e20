"""Rows in groups whose size follows from the schema alone, however the rows arrive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from batchonnx.parts.row_sizes import variable_bytes

ROW_GROUP_ROWS = 1 << 18
ROW_GROUP_BYTES = 32 << 20
VARIABLE_BYTES = 128
"""What a value of variable size (text, a list) is taken for, when a row group is sized."""


class RowGroups:
    """Gathers rows to groups of a given size: the bytes of a file don't depend on how rows come.

    group_rows: of a group, at most. most_bytes: a group ends, too, with the row whose text and lists make it
    so large; None: rows alone count.
    """

    def __init__(self, schema: pa.Schema, group_rows: int, most_bytes: int | None = None) -> None:
        self._schema, self._group_rows, self._most_bytes = schema, group_rows, most_bytes
        self._pending: list[pa.RecordBatch] = []
        self._sizes: list[np.ndarray] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """The groups that these rows fill."""
        self._pending.append(batch)
        self._rows += batch.num_rows
        if self._most_bytes is not None and (sizes := variable_bytes(batch)) is not None:
            self._sizes.append(sizes)
            self._bytes += int(sizes.sum())
        if self._rows < self._group_rows and self._bytes < (self._most_bytes or 1):
            return
        rows = pa.Table.from_batches(self._pending, self._schema)
        gathered = np.concatenate(self._sizes) if self._sizes else None
        first = 0
        while (end := self._end(gathered, first, rows.num_rows)) is not None:
            # In one piece: where Parquet's pages end depends on where an array's chunks do.
            yield rows.slice(first, end - first).combine_chunks()
            first = end
        self._pending = rows.slice(first).to_batches()
        self._sizes = [gathered[first:]] if gathered is not None else []
        self._rows = rows.num_rows - first
        self._bytes = int(gathered[first:].sum()) if gathered is not None else 0

    def _end(self, sizes: np.ndarray | None, first: int, rows: int) -> int | None:
        """Where the group that begins with the row `first` ends; None if it isn't full."""
        if sizes is not None and self._most_bytes is not None:
            grown = np.cumsum(sizes[first : first + self._group_rows])
            full = int(np.searchsorted(grown, self._most_bytes))
            if full < len(grown):
                return first + full + 1
        return first + self._group_rows if rows - first >= self._group_rows else None

    def rest(self) -> Iterator[pa.Table]:
        """The last group, if there are rows left."""
        if self._rows:
            yield pa.Table.from_batches(self._pending, self._schema).combine_chunks()
        self._pending, self._sizes, self._rows, self._bytes = [], [], 0, 0


def row_group_rows(schema: pa.Schema, most_bytes: int = ROW_GROUP_BYTES) -> int:
    """Rows of a row group: of about so many bytes in memory, at most 262,144, at least 1."""
    return max(1, min(ROW_GROUP_ROWS, most_bytes // row_bytes(schema)))


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of a row in memory, as good as its types tell; at least 1."""
    return max(1, sum(_width(field.type) for field in schema))


def _width(arrow_type: pa.DataType) -> int:
    """Bytes of a value, as good as its type tells."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _width(arrow_type.storage_type)
    if pat.is_fixed_size_list(arrow_type):
        return int(arrow_type.list_size) * _width(arrow_type.value_type)
    if pat.is_struct(arrow_type):
        return sum(_width(child.type) for child in arrow_type)
    try:
        return int(arrow_type.bit_width + 7) // 8
    except ValueError:
        return VARIABLE_BYTES
