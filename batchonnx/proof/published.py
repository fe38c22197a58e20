"""The rows of a published result, whatever its format: by files, or a shard's in the order of its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.ledger.output import Output
from batchonnx.ledger.part_files import FOLDER
from batchonnx.ledger.records import Commit, StoredFile
from batchonnx.parts.layout import Layout
from batchonnx.parts.read import read_file
from batchonnx.scoring.pick import take


def read_stored(
    output: Output, layout: Layout, stored: StoredFile, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A part's rows. columns: None for all. Raises FileNotFoundError, OSError, ArrowException, ValueError."""
    with output.open(stored.path) as source:
        yield from read_file(source, layout, stored.path, columns)


def read_parts(
    output: Output, layout: Layout, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of a shard, part after part; raises as `read_stored`."""
    for stored in commit.parts:
        yield from read_stored(output, layout, stored, columns)


def place_in_shard(output: Output, commit: Commit, stored: StoredFile, place: int) -> int:
    """Which of a shard's predicted rows, in the order of the input, a row of one of its parts is."""
    beside = [part for part in commit.parts if _folder(part) == _folder(stored)]
    before = sum(part.rows for part in beside[: beside.index(stored)])
    order = read_order(output, commit)
    return before + place if order is None else int(np.flatnonzero(order == _folder(stored))[before + place])


def rows_of_shard(output: Output, layout: Layout, commit: Commit, first: int, count: int) -> pa.Table:
    """Predicted rows of a shard, in the order of the input."""
    order = read_order(output, commit)
    if order is None:
        return _slice(output, layout, commit.parts, first, count)
    wanted = order[first : first + count]
    pieces, places = [], []
    for folder in dict.fromkeys(wanted.tolist()):
        parts = [part for part in commit.parts if _folder(part) == folder]
        here = np.flatnonzero(wanted == folder)
        before = int((order[:first] == folder).sum())
        pieces.append(_slice(output, layout, parts, before, len(here)))
        places.append(here)
    back = np.argsort(np.concatenate(places), kind="stable")
    rows = pa.concat_batches([batch for piece in pieces for batch in piece.to_batches()])
    return pa.Table.from_batches([take(rows, back)])


def read_order(output: Output, commit: Commit) -> np.ndarray | None:
    """object[predicted]: the folder of each predicted row; None if the shard's rows are in one."""
    if commit.order is None:
        return None
    with output.open(commit.order.path) as source:
        folders = pq.read_table(source, columns=[FOLDER]).column(0)
    return np.asarray(folders.to_pylist(), object)


def _folder(stored: StoredFile) -> str:
    return stored.path.rpartition("/")[0]


def _slice(output: Output, layout: Layout, parts: Sequence[StoredFile], first: int, count: int) -> pa.Table:
    """Rows of some parts that follow each other."""
    found: list[pa.RecordBatch] = []
    for part in parts:
        if first >= part.rows:
            first -= part.rows
            continue
        for batch in read_stored(output, layout, part):
            if count and first < batch.num_rows:
                found.append(batch.slice(first, count))
                count -= found[-1].num_rows
            first = max(0, first - batch.num_rows)
        if not count:
            break
    return pa.Table.from_batches(found, layout.arrow_schema if not found else None)
