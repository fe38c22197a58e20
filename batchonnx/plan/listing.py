"""The input's files with their footers, listed once."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from batchonnx.formats.footer import Footer


@dataclass(frozen=True)
class SourceFile:
    """One input file as the plan saw it.

    path: absolute path or URL. version: an etag, or mtime in ns; another one means another file.
    partition: Hive key -> value, parsed from the folders' names (None is Hive's null).
    """

    path: str
    size: int
    version: str
    footer: Footer
    partition: dict[str, int | str | None]


@dataclass(frozen=True)
class Listing:
    """All input files in a fixed order, and the one schema that they share.

    format: parquet, arrow, csv, jsonl or files.
    schema: the files' columns, then the Hive partition columns.
    """

    format: str
    files: tuple[SourceFile, ...]
    schema: pa.Schema
    partition_columns: tuple[str, ...] = ()
