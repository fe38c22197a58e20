"""Which formats there are, and how a file's name tells its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import pyarrow as pa

from batchonnx.formats.footer import Footer
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.spans import Span

Opener = Callable[[FileEntry], pa.NativeFile]
"""What opens a file for reading: `storage.paths.open_input`, or what has begun to fetch it."""


class Format(Protocol):
    """What a format's module offers."""

    def read_footer(self, file: FileEntry) -> Footer:
        """Schema and row groups. Raises InputError naming the file if it is broken."""

    def spans(
        self, file: FileEntry, footer: Footer, row_groups: Sequence[int], columns: Sequence[str]
    ) -> Sequence[Span]:
        """Which bytes `read_rows` will read, in its order, of a file that has to be fetched."""

    def read_rows(
        self,
        file: FileEntry,
        footer: Footer,
        row_groups: Sequence[int],
        columns: Sequence[str],
        chunk_rows: int,
        opener: Opener,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the row groups, in order, as batches of `chunk_rows` rows.

        A batch never spans two row groups, so only the last of a row group is shorter. Columns
        come in the order asked. Raises InputError naming the file, and row group where it can.
        """


@dataclass(frozen=True)
class _Entry:
    module: str
    suffixes: tuple[str, ...]


_FORMATS = {
    "parquet": _Entry("parquet", ("parquet", "pq", "parq")),
    "arrow": _Entry("arrow", ("arrow", "feather", "ipc", "arrows")),
    "csv": _Entry("csv", ("csv", "tsv")),
    "jsonl": _Entry("jsonl", ("jsonl", "ndjson", "json")),
    "files": _Entry("files", ()),
}
_PACKED = re.compile(r"\.(gz|bz2|zst|lz4|br)$")


def get_format(name: str) -> Format:
    """The module of a format, imported when first asked for."""
    module: Format = import_module(f"batchonnx.formats.{_FORMATS[name].module}")
    return module


def format_of(path: str) -> str | None:
    """The format that a file's name tells, or None."""
    suffix = _PACKED.sub("", path.lower()).rpartition(".")[2]
    return next((name for name, entry in _FORMATS.items() if suffix in entry.suffixes), None)
