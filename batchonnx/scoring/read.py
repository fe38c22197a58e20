"""From a shard to chunks: row groups read in order, filtered, joined where they are small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchonnx.errors import InputError, Problem
from batchonnx.formats.registry import get_format
from batchonnx.planning.filter import Filter
from batchonnx.planning.listing import Listing, SourceFile
from batchonnx.planning.shards import Shard, Source
from batchonnx.scoring.chunk import Chunk, Segment

_ROW = "__batchonnx_row"


@dataclass(frozen=True)
class _Piece:
    """Rows of one file that were read together; `filtered` were dropped from among them."""

    columns: pa.RecordBatch
    segment: Segment
    filtered: int


def read_chunks(
    shard: Shard,
    listing: Listing,
    columns: Sequence[str],
    row_filter: Filter | None,
    batch_rows: int,
    chunk_rows: int,
) -> Iterator[Chunk]:
    """Read a shard's rows, in order, as chunks of at most `chunk_rows` rows.

    A piece of a row group with at least `batch_rows` rows is a chunk by itself, without a copy;
    smaller ones are joined until they reach `batch_rows`. So batches follow from plan and data
    alone. The last chunk may have no rows, if the filter dropped all that was left.
    Raises InputError naming file and row group.
    """
    pending: list[_Piece] = []
    rows = dropped = 0
    for piece in _pieces(shard, listing, columns, row_filter, chunk_rows):
        count = piece.columns.num_rows
        dropped += piece.filtered
        if count == 0:
            continue
        if pending and (count >= batch_rows or rows + count > chunk_rows):
            yield _join(pending, dropped)
            pending, rows, dropped = [], 0, 0
        pending.append(piece)
        rows += count
        if rows >= batch_rows:
            yield _join(pending, dropped)
            pending, rows, dropped = [], 0, 0
    if pending:
        yield _join(pending, dropped)
    elif dropped:
        schema = pa.schema([listing.schema.field(name) for name in columns])
        yield Chunk(pa.RecordBatch.from_pylist([], schema), (), dropped)


def _join(pieces: Sequence[_Piece], filtered: int) -> Chunk:
    batches = [piece.columns for piece in pieces]
    columns = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    return Chunk(columns, tuple(piece.segment for piece in pieces), filtered)


def _pieces(
    shard: Shard, listing: Listing, columns: Sequence[str], row_filter: Filter | None, chunk_rows: int
) -> Iterator[_Piece]:
    filtered_by = row_filter.columns if row_filter is not None else frozenset()
    wanted = [*columns, *(name for name in filtered_by if name not in columns)]
    for source in shard.sources:
        file = listing.files[source.file]
        row = source.first_row
        for batch in _rows(file, source, listing, wanted, chunk_rows):
            segment = Segment(file.path, row, batch.num_rows)
            row += batch.num_rows
            if row_filter is None:
                yield _Piece(batch, segment, 0)
            else:
                yield _filter(batch, segment, columns, row_filter)
        found = row - source.first_row
        if source.rows is not None and found != source.rows:
            facts = {"file": file.path, "expected": f"{source.rows:,} rows", "found": f"{found:,}"}
            fix = "run the same command again, when the file is complete"
            raise InputError(Problem("the file has changed since the plan was made", facts, fix))


def _rows(
    file: SourceFile, source: Source, listing: Listing, wanted: Sequence[str], chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """A source's rows with the partition's values as columns, in the order of `wanted`."""
    stored = [name for name in wanted if name not in file.partition]
    read = get_format(listing.format).read_rows
    schema = pa.schema([listing.schema.field(name) for name in wanted])
    for batch in read(file.path, file.footer, source.row_groups, stored, chunk_rows):
        if not file.partition:
            yield batch
            continue
        arrays = []
        for field in schema:
            if field.name in file.partition:
                value = pa.scalar(file.partition[field.name], field.type)
                arrays.append(pa.repeat(value, batch.num_rows))
            else:
                arrays.append(batch.column(field.name))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _filter(batch: pa.RecordBatch, segment: Segment, columns: Sequence[str], row_filter: Filter) -> _Piece:
    """The rows that pass, with their places in the file where some didn't."""
    places = np.arange(segment.first_row, segment.first_row + segment.rows)
    table = pa.Table.from_batches([batch]).append_column(_ROW, pa.array(places))
    passed = table.filter(row_filter.expression).combine_chunks()
    dropped = segment.rows - passed.num_rows
    if dropped == 0:
        return _Piece(batch.select(list(columns)), segment, 0)
    index = passed.column(_ROW).to_numpy()
    first = int(index[0]) if len(index) else segment.first_row
    kept = passed.select(list(columns))
    batches = kept.to_batches()
    rows = batches[0] if batches else pa.RecordBatch.from_pylist([], kept.schema)
    return _Piece(rows, Segment(segment.path, first, passed.num_rows, index), dropped)
