"""A folder of any files: each file is one row of path, size and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.storage.paths import open_input

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("bytes", pa.binary())])


def read_footer(path: str, size: int) -> Footer:
    """One row; nothing is read."""
    return Footer(SCHEMA, (RowGroup(1, size),))


def read_rows(
    path: str, footer: Footer, row_groups: Sequence[int], columns: Sequence[str], chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """The file's row; its bytes are read only if they are asked for."""
    size = footer.row_groups[0].bytes
    values: dict[str, list[object]] = {"path": [path], "size": [size]}
    if "bytes" in columns:
        with open_input(path) as source:
            values["bytes"] = [source.read()]
    arrays = [pa.array(values[name], SCHEMA.field(name).type) for name in values]
    yield pa.RecordBatch.from_arrays(arrays, names=list(values)).select(list(columns))
