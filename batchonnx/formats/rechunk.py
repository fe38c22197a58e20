"""Text formats come in blocks of bytes: blocks to batches of a given number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa


def rechunk(blocks: Iterator[pa.RecordBatch], chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `chunk_rows`; only the last is shorter. Copies where blocks meet."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for block in blocks:
        pending.append(block)
        rows += block.num_rows
        if rows < chunk_rows:
            continue
        joined = pa.concat_batches(pending) if len(pending) > 1 else block
        whole = rows - rows % chunk_rows
        for first in range(0, whole, chunk_rows):
            yield joined.slice(first, chunk_rows)
        pending, rows = [joined.slice(whole)], rows - whole
    if rows:
        yield pa.concat_batches(pending)
