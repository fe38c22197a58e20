"""Which formats a result may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Protocol

import pyarrow as pa


class Writer(Protocol):
    """A file that is being written."""

    def write(self, rows: pa.Table) -> None:
        """Add a row group."""

    def close(self) -> None:
        """Write what is left, and the footer. What it is written into stays open."""


class Kind(Protocol):
    """What a format's module offers."""

    def open_writer(
        self, sink: pa.NativeFile, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
    ) -> Writer:
        """A file to write into `sink`. lineage: where its rows come from, for a footer, if there is one."""

    def read(
        self, source: pa.NativeFile, compression: str, schema: pa.Schema | None, columns: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows, as they were written; columns: those that are wanted, in that order; None: all.

        schema: of all columns in the file; None if only the file tells. Raises OSError, ArrowException,
        ValueError for a file that is broken.
        """

    def misfits(self, kind: pa.DataType) -> Iterator[pa.DataType]:
        """Types within a column's type that the format can't hold."""


def get_kind(name: str) -> Kind:
    """The module of a format, imported when first asked for."""
    module: Kind = import_module(f"batchonnx.parts.{name}")
    return module
