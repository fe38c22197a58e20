"""The first predictions as a small table."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.planning.types import plain
from batchonnx.report.text import printable, shorten

ROWS, COLUMNS, WIDTH = 5, 8, 34


def format_preview(output: Path) -> str:
    """The first rows of a published result; empty where there is none."""
    rows: list[list[str]] = []
    names: list[str] = []
    for part in sorted(output.glob("*.parquet")):
        file = pq.ParquetFile(part)
        names = file.schema_arrow.names
        for batch in islice(file.iter_batches(ROWS, row_groups=None), 1):
            rows += _cells(batch)
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


def _cells(batch: pa.RecordBatch) -> list[list[str]]:
    columns = [list(map(plain, column)) for column in batch.columns[:COLUMNS]]
    return [[_cell(value) for value in row] for row in zip(*columns, strict=True)]


def _cell(value: object) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return shorten("[" + ", ".join(_cell(item) for item in value[:8]) + "]", WIDTH)
    if isinstance(value, dict):
        return shorten("{" + ", ".join(f"{k}: {_cell(v)}" for k, v in value.items()) + "}", WIDTH)
    return shorten(printable("null" if value is None else str(value)), WIDTH)
