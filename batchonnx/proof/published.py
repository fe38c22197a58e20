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
from batchonnx.planning.lines import ELEMENT
from batchonnx.scoring.lines import begin_rows, implode, imploded_schema
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


def read_rows(
    output: Output, layout: Layout, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """As `read_parts`, a row for each predicted row: exploded lines are joined to lists again."""
    if not layout.exploded:
        yield from read_parts(output, layout, commit, columns)
        return
    wanted = [*columns, ELEMENT] if columns is not None else None
    yield from implode(read_parts(output, layout, commit, wanted), layout.exploded)


def row_schema(layout: Layout) -> pa.Schema | None:
    """Of what `read_rows` gives; None where only the files tell."""
    schema = layout.arrow_schema
    return imploded_schema(schema, layout.exploded) if schema is not None else None


def place_in_shard(output: Output, layout: Layout, commit: Commit, stored: StoredFile, place: int) -> int:
    """Which of a shard's predicted rows, in the order of the input, a row of one of its parts is of."""
    if layout.exploded:
        line = sum(part.rows for part in commit.parts[: commit.parts.index(stored)]) + place
        begins = [begin_rows(b.column(0)) for b in read_parts(output, layout, commit, [ELEMENT])]
        return int(np.concatenate(begins)[: line + 1].sum()) - 1
    beside = [part for part in commit.parts if _folder(part) == _folder(stored)]
    before = sum(part.rows for part in beside[: beside.index(stored)])
    order = read_order(output, commit)
    return before + place if order is None else int(np.flatnonzero(order == _folder(stored))[before + place])


def rows_of_shard(
    output: Output,
    layout: Layout,
    commit: Commit,
    first: int,
    count: int,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Predicted rows of a shard, in the order of the input; of exploded ones as `read_rows` gives them.

    columns: None for all.
    """
    if layout.exploded:
        return _cut(read_rows(output, layout, commit, columns), first, count, row_schema(layout))
    order = read_order(output, commit)
    if order is None:
        return _slice(output, layout, commit.parts, first, count, columns)
    wanted = order[first : first + count]
    pieces, places = [], []
    for folder in dict.fromkeys(wanted.tolist()):
        parts = [part for part in commit.parts if _folder(part) == folder]
        here = np.flatnonzero(wanted == folder)
        before = int((order[:first] == folder).sum())
        pieces.append(_slice(output, layout, parts, before, len(here), columns))
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


def _slice(
    output: Output,
    layout: Layout,
    parts: Sequence[StoredFile],
    first: int,
    count: int,
    columns: Sequence[str] | None,
) -> pa.Table:
    """Rows of some parts that follow each other."""
    begin = 0
    while begin < len(parts) and first >= parts[begin].rows:
        first -= parts[begin].rows
        begin += 1
    batches = (batch for part in parts[begin:] for batch in read_stored(output, layout, part, columns))
    return _cut(batches, first, count, layout.arrow_schema)


def _cut(batches: Iterator[pa.RecordBatch], first: int, count: int, schema: pa.Schema | None) -> pa.Table:
    """Some of the rows. schema: if there are none."""
    found: list[pa.RecordBatch] = []
    for batch in batches:
        if count and first < batch.num_rows:
            found.append(batch.slice(first, count))
            count -= found[-1].num_rows
        first = max(0, first - batch.num_rows)
        if not count:
            break
    return pa.Table.from_batches(found, schema if not found else None)
