"""Predictions to Parquet: one part for one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

ROW_GROUP_ROWS = 1 << 18
ROW_GROUP_BYTES = 32 << 20
VARIABLE_BYTES = 128
"""What a value of variable size (text, a list) is taken for, when a row group is sized."""


class PartWriter:
    """Writes one part, in row groups whose size follows from the schema alone.

    So the bytes don't depend on how rows arrive: in which runs, or scored by whom. Floats are
    written without a dictionary: predictions hardly repeat, and trying costs ten times the
    encoding itself.
    """

    def __init__(
        self,
        sink: Path | BinaryIO,
        schema: pa.Schema,
        compression: str,
        lineage: Mapping[str, str] | None = None,
    ) -> None:
        """sink: a path, or something to write to. lineage: where rows come from, for the file's footer."""
        schema = schema.with_metadata(dict(lineage)) if lineage else schema
        self._schema = schema
        self._group_rows = row_group_rows(schema)
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            compression=compression,
            use_dictionary=_columns_that_repeat(schema),
            write_page_index=True,
            write_page_checksum=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they reach the file when a row group is full."""
        self._pending.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self._group_rows:
            rows = pa.Table.from_batches(self._pending, self._schema)
            whole = self._rows - self._rows % self._group_rows
            for first in range(0, whole, self._group_rows):
                self._write_group(rows.slice(first, self._group_rows))
            self._pending = rows.slice(whole).to_batches()
            self._rows -= whole

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._rows:
            self._write_group(pa.Table.from_batches(self._pending, self._schema))
        self._pending, self._rows = [], 0
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file, if it isn't closed yet: after an error, of a part that will never count."""
        self._pending.clear()
        with suppress(OSError):
            self._writer.close()

    def _write_group(self, rows: pa.Table) -> None:
        # In one piece: where pages end depends on where an array's chunks do.
        self._writer.write_table(rows.combine_chunks(), row_group_size=self._group_rows)


def row_group_rows(schema: pa.Schema) -> int:
    """Rows of a row group: of about 32 MiB in memory, at most 262,144, at least 1."""
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // max(1, sum(_width(f.type) for f in schema))))


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


def _columns_that_repeat(schema: pa.Schema) -> list[str]:
    return [path for field in schema for path in _leaves(field.name, field.type) if path]


def _leaves(path: str, arrow_type: pa.DataType) -> Sequence[str]:
    """Parquet paths of the leaves worth a dictionary: everything but floats."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _leaves(path, arrow_type.storage_type)
    if pat.is_fixed_size_list(arrow_type) or pat.is_list(arrow_type) or pat.is_large_list(arrow_type):
        return _leaves(f"{path}.list.element", arrow_type.value_type)
    if pat.is_struct(arrow_type):
        return [leaf for child in arrow_type for leaf in _leaves(f"{path}.{child.name}", child.type)]
    if pat.is_map(arrow_type):
        keys = _leaves(f"{path}.key_value.key", arrow_type.key_type)
        return [*keys, *_leaves(f"{path}.key_value.value", arrow_type.item_type)]
    return [] if pat.is_floating(arrow_type) else [path]
