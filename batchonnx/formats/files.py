"""A folder of any files: each file is one row of path, size and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.registry import Opener
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import open_input
from batchonnx.storage.spans import Span, sequential

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("bytes", pa.binary())])


def read_footer(file: FileEntry) -> Footer:
    """One row; nothing is read."""
    return Footer(SCHEMA, (RowGroup(1, file.size),))


def spans(file: FileEntry, footer: Footer, row_groups: Sequence[int], columns: Sequence[str]) -> list[Span]:
    """The whole file, if its bytes are asked for; see `formats.registry.Format`."""
    return sequential(0, file.size) if "bytes" in columns else []


def read_rows(
    file: FileEntry,
    footer: Footer,
    row_groups: Sequence[int],
    columns: Sequence[str],
    chunk_rows: int,
    opener: Opener = open_input,
) -> Iterator[pa.RecordBatch]:
    """The file's row; its bytes are read only if they are asked for."""
    size = footer.row_groups[0].bytes
    values: dict[str, list[object]] = {"path": [file.path], "size": [size]}
    if "bytes" in columns:
        with opener(file) as source:
            values["bytes"] = [source.read()]
    arrays = [pa.array(values[name], SCHEMA.field(name).type) for name in values]
    yield pa.RecordBatch.from_arrays(arrays, names=list(values)).select(list(columns))
