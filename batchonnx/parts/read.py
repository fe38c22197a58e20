"""A file of a result as rows with all the result's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchonnx.parts.kinds import get_kind
from batchonnx.parts.layout import Layout
from batchonnx.parts.partitions import values_of, with_values


def read_file(
    source: pa.NativeFile, layout: Layout, path: str, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows in their order, with the columns that the file's folders tell. columns: None for all.

    Raises OSError, ArrowException, ValueError for a file that is broken.
    """
    kind, schema = get_kind(layout.format), layout.arrow_schema
    if not layout.partition_by or schema is None:
        yield from kind.read(source, layout.compression, layout.stored_schema, columns)
        return
    names = list(schema.names if columns is None else columns)
    told = values_of(path, layout.partition_by, schema)
    stored = [name for name in names if name not in told]
    # A file has a column of its own; without any asked for, it still tells how many rows there are.
    asked = stored or [layout.stored_schema.names[0]]  # type: ignore[union-attr]
    wanted = pa.schema([schema.field(name) for name in names])
    for batch in kind.read(source, layout.compression, layout.stored_schema, asked):
        yield with_values(batch, told, wanted)
