"""Rows in groups whose size follows from the schema alone, however the rows arrive."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.types as pat

ROW_GROUP_ROWS = 1 << 18
ROW_GROUP_BYTES = 32 << 20
VARIABLE_BYTES = 128
"""What a value of variable size (text, a list) is taken for, when a row group is sized."""


class RowGroups:
    """Gathers rows to groups of a given size: the bytes of a file don't depend on how rows come."""

    def __init__(self, schema: pa.Schema, group_rows: int) -> None:
        self._schema, self._group_rows = schema, group_rows
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """The groups that these rows fill."""
        self._pending.append(batch)
        self._rows += batch.num_rows
        if self._rows < self._group_rows:
            return
        rows = pa.Table.from_batches(self._pending, self._schema)
        whole = self._rows - self._rows % self._group_rows
        self._pending = rows.slice(whole).to_batches()
        self._rows -= whole
        for first in range(0, whole, self._group_rows):
            # In one piece: where Parquet's pages end depends on where an array's chunks do.
            yield rows.slice(first, self._group_rows).combine_chunks()

    def rest(self) -> Iterator[pa.Table]:
        """The last group, if there are rows left."""
        if self._rows:
            yield pa.Table.from_batches(self._pending, self._schema).combine_chunks()
        self._pending, self._rows = [], 0


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
