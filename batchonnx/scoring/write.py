"""Predictions to Parquet: one part for one shard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

ROW_GROUP_ROWS = 1 << 18
ROW_GROUP_BYTES = 32 << 20


class PartWriter:
    """Writes one part. Rows are gathered into row groups of at most 262,144 rows or 32 MiB.

    Floats are written without a dictionary: predictions hardly repeat, and trying costs ten
    times the encoding itself.
    """

    def __init__(self, path: Path, schema: pa.Schema, compression: str) -> None:
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._writer = pq.ParquetWriter(
            path,
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
        self._bytes += batch.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of the file; after an error, of a part that will never count."""
        self._pending.clear()
        with suppress(OSError) if kind is not None else nullcontext():
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._pending.clear()
        self._rows = self._bytes = 0


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
