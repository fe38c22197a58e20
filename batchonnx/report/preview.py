"""The first predictions as a small table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from batchonnx.ledger.records import Manifest
from batchonnx.ledger.run_folder import read_manifest
from batchonnx.parts.read import read_file
from batchonnx.planning.types import plain
from batchonnx.report.text import printable, shorten

ROWS, COLUMNS, WIDTH = 5, 8, 34


def format_preview(output: Path) -> str:
    """The first rows of a published result; empty where there is none, or not on this machine."""
    manifest = read_manifest(output)
    return format_rows(_first_batches(output, manifest)) if manifest is not None else ""


def format_rows(batches: Iterable[pa.RecordBatch]) -> str:
    """The first rows of batches that have the same columns; empty where there are none."""
    rows: list[list[str]] = []
    names: list[str] = []
    for batch in batches:
        names = batch.schema.names
        rows += _cells(batch.slice(0, ROWS))
        if len(rows) >= ROWS:
            break
    if not rows:
        return ""
    header = [shorten(printable(name), WIDTH) for name in names[:COLUMNS]]
    table = [header, *rows[:ROWS]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    more = f"  … {len(names) - COLUMNS} more columns" if len(names) > COLUMNS else ""
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n" + "\n".join(line.rstrip() for line in [lines[0] + more, *lines[1:]])


def _first_batches(output: Path, manifest: Manifest) -> Iterator[pa.RecordBatch]:
    parts = [part for commit in manifest.commits for part in commit.parts]
    for part in sorted(parts, key=lambda one: one.path):
        with pa.OSFile(str(output / part.path)) as source:
            yield from islice(read_file(source, manifest.layout, part.path), 1)


def _cells(batch: pa.RecordBatch) -> list[list[str]]:
    columns = [list(map(plain, column)) for column in batch.columns[:COLUMNS]]
    return [[cell(value) for value in row] for row in zip(*columns, strict=True)]


def cell(value: object) -> str:
    """A value in a few characters; foreign text is harmless."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return shorten("[" + ", ".join(cell(item) for item in value[:8]) + "]", WIDTH)
    if isinstance(value, dict):
        return shorten("{" + ", ".join(f"{k}: {cell(v)}" for k, v in value.items()) + "}", WIDTH)
    return shorten(printable("null" if value is None else str(value)), WIDTH)
