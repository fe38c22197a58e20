"""The rows of a published result, whatever its format: by files, or a shard's in the order of its input.

Of an exploded result the files hold lines, which are joined to rows again (see `scoring.lines`); of a
partitioned one a shard's lines lie in several folders, and its order tells which is in which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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

BLOCK_LINES = 1 << 16
"""Of several folders, so many lines are put in order at a time."""


def read_stored(
    output: Output, layout: Layout, stored: StoredFile, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A part's rows. columns: None for all. Raises FileNotFoundError, OSError, ArrowException, ValueError."""
    with output.open(stored.path) as source:
        yield from read_file(source, layout, stored.path, columns)


def read_parts(
    output: Output, layout: Layout, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All lines of a shard, part after part; raises as `read_stored`."""
    for stored in commit.parts:
        yield from read_stored(output, layout, stored, columns)


def read_lines(
    output: Output, layout: Layout, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """As `read_parts`, in the order of the input whatever folders they lie in.

    Raises ValueError, too, where the parts have fewer lines than the order tells of.
    """
    order = _read_order(output, commit)
    if order is None:
        yield from read_parts(output, layout, commit, columns)
        return
    folders, numbers = order
    beside = [[part for part in commit.parts if _folder(part) == folder] for folder in folders]
    streams = [
        _Stream(batch for part in parts for batch in read_stored(output, layout, part, columns))
        for parts in beside
    ]
    for first in range(0, len(numbers), BLOCK_LINES):
        here = numbers[first : first + BLOCK_LINES]
        places = np.argsort(here, kind="stable")
        counts = np.bincount(here, minlength=len(folders))
        lines = [batch for number in np.flatnonzero(counts) for batch in streams[number].take(counts[number])]
        yield take(pa.concat_batches(lines), np.argsort(places, kind="stable"))


def read_rows(
    output: Output, layout: Layout, commit: Commit, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """As `read_parts`, a row for each predicted row: exploded lines are joined to lists again."""
    if not layout.exploded:
        yield from read_parts(output, layout, commit, columns)
        return
    wanted = [*columns, ELEMENT] if columns is not None else None
    yield from implode(read_lines(output, layout, commit, wanted), layout.exploded)


def row_schema(layout: Layout) -> pa.Schema | None:
    """Of what `read_rows` gives; None where only the files tell."""
    schema = layout.arrow_schema
    return imploded_schema(schema, layout.exploded) if schema is not None else None


def place_in_shard(output: Output, layout: Layout, commit: Commit, stored: StoredFile, place: int) -> int:
    """Which of a shard's predicted rows, in the order of the input, a row of one of its parts is of."""
    beside = [part for part in commit.parts if _folder(part) == _folder(stored)]
    line = sum(part.rows for part in beside[: beside.index(stored)]) + place
    order = _read_order(output, commit)
    if order is not None:
        folders, numbers = order
        line = int(np.flatnonzero(numbers == folders.index(_folder(stored)))[line])
    if not layout.exploded:
        return line
    begins = [begin_rows(b.column(0)) for b in read_lines(output, layout, commit, [ELEMENT])]
    return int(np.concatenate(begins)[: line + 1].sum()) - 1


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
    if commit.order is not None:
        return _cut(read_lines(output, layout, commit, columns), first, count, layout.arrow_schema)
    return _slice(output, layout, commit.parts, first, count, columns)


def _read_order(output: Output, commit: Commit) -> tuple[list[str], np.ndarray] | None:
    """Folders, and int[lines]: which of them each line lies in; None if the shard's lines are in one."""
    if commit.order is None:
        return None
    with output.open(commit.order.path) as source:
        found = pq.read_table(source, columns=[FOLDER]).column(0).combine_chunks().dictionary_encode()
    return found.dictionary.to_pylist(), found.indices.to_numpy()


class _Stream:
    """Lines that follow each other, as many at a time as are asked for."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self._rest: pa.RecordBatch | None = None

    def take(self, count: int) -> Iterator[pa.RecordBatch]:
        """The next ones. Raises ValueError if there are fewer."""
        while count:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise ValueError(f"{count:,} lines are missing that the order tells of")
            yield batch.slice(0, count)
            self._rest = batch.slice(count) if count < batch.num_rows else None
            count -= min(count, batch.num_rows)


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
