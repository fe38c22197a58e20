"""From a shard to chunks: row groups read in order, filtered, joined where they are small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.acero as acero

from batchonnx.errors import InputError, Problem
from batchonnx.formats.registry import Opener, get_format
from batchonnx.planning.filter import Filter
from batchonnx.planning.listing import Listing, SourceFile
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard, Source, largest_first
from batchonnx.planning.types import joinable
from batchonnx.scoring.chunk import Chunk, Segment
from batchonnx.storage.paths import is_ranged, open_input, version_of
from batchonnx.storage.ranged import Announced, ReadAhead


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
    on_source: Callable[[Source, int], None] = lambda source, rows: None,
) -> Iterator[Chunk]:
    """Read a shard's rows, in order, as chunks of at most `chunk_rows` rows.

    A piece of a row group with at least `batch_rows` rows is a chunk by itself, without a copy;
    smaller ones are joined until they reach `batch_rows`. So batches follow from plan and data
    alone. The last chunk may have no rows, if the filter dropped all that was left.
    on_source: told how many rows each source had, when it has been read.
    Raises InputError naming file and row group.
    """
    return ShardReading(shard, listing, columns, row_filter, chunk_rows).chunks(batch_rows, on_source)


EARLY_BYTES = 128 << 20
"""Of each shard that is begun early: a row group, without which there is no row."""


def begin_reading(plan: Plan, shard: Shard, first_bytes: int | None = None) -> ShardReading:
    """A shard of a plan; what lies in a store is fetched ahead from now on, `first_bytes` to begin with."""
    return ShardReading(shard, plan.listing, plan.columns, plan.filter, plan.chunk_rows, first_bytes)


@contextmanager
def read_early(plan: Plan, count: int) -> Iterator[dict[int, ShardReading]]:
    """The first shards, whose bytes are on their way while the run is being opened: number -> reading."""
    early = largest_first(plan.shards)[:count]
    readings = {shard.number: begin_reading(plan, shard, EARLY_BYTES) for shard in early}
    try:
        yield readings
    finally:
        for reading in readings.values():
            reading.close()


def _chunks(pieces: Iterator[_Piece], batch_rows: int, chunk_rows: int) -> Iterator[Chunk]:
    pending: list[_Piece] = []
    rows = dropped = 0
    last: pa.RecordBatch | None = None
    for piece in pieces:
        count, last = piece.columns.num_rows, piece.columns
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
    elif dropped and last is not None:
        yield Chunk(last, (), dropped)


def _join(pieces: Sequence[_Piece], filtered: int) -> Chunk:
    batches = [piece.columns for piece in pieces]
    columns = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    return Chunk(columns, tuple(piece.segment for piece in pieces), filtered)


class ShardReading:
    """A shard that is about to be read; what of it lies in a store is fetched ahead from now on."""

    def __init__(
        self,
        shard: Shard,
        listing: Listing,
        columns: Sequence[str],
        row_filter: Filter | None,
        chunk_rows: int,
        first_bytes: int | None = None,
    ) -> None:
        filtered_by = sorted(row_filter.columns) if row_filter is not None else []
        self.shard, self.listing, self.columns, self.filter = shard, listing, columns, row_filter
        self.chunk_rows = chunk_rows
        self.wanted = [*columns, *(name for name in filtered_by if name not in columns)]
        self._ahead: ReadAhead | None = None
        if any(is_ranged(listing.files[source.file].path) for source in shard.sources):
            files = map(partial(_announced, listing, self.wanted), shard.sources)
            self._ahead = ReadAhead(files, first_bytes=first_bytes)

    @property
    def is_fetched(self) -> bool:
        """Whether all that is to be fetched is here or under way: the next shard's turn."""
        return self._ahead is not None and self._ahead.is_all_asked

    def chunks(
        self, batch_rows: int, on_source: Callable[[Source, int], None] = lambda source, rows: None
    ) -> Iterator[Chunk]:
        """Its rows, once; see `read_chunks`."""
        return _chunks(_pieces(self, on_source), batch_rows, self.chunk_rows)

    @contextmanager
    def opener(self) -> Iterator[Opener]:
        """What opens the next source's file; for as long as it is read."""
        if self._ahead is None:
            yield open_input
            return
        with closing(self._ahead.next_file()) as file:
            yield lambda _: pa.PythonFile(file, mode="r")

    def close(self) -> None:
        """Nothing more is read."""
        if self._ahead is not None:
            self._ahead.close()


def _announced(listing: Listing, wanted: Sequence[str], source: Source) -> Announced:
    file = listing.files[source.file]
    spans = get_format(listing.format).spans
    return file, partial(spans, file, file.footer, source.row_groups, _stored(file, wanted))


def _stored(file: SourceFile, wanted: Sequence[str]) -> list[str]:
    """The wanted columns that lie in the file, not in its folders' names."""
    return [name for name in wanted if name not in file.partition]


def _pieces(reading: ShardReading, on_source: Callable[[Source, int], None]) -> Iterator[_Piece]:
    with closing(reading):
        for source in reading.shard.sources:
            with reading.opener() as opener:
                yield from _source_pieces(reading, source, opener, on_source)


def _source_pieces(
    reading: ShardReading, source: Source, opener: Opener, on_source: Callable[[Source, int], None]
) -> Iterator[_Piece]:
    file = reading.listing.files[source.file]
    if version_of(file.path) not in (None, file.version):
        raise _changed(file, {})
    row = source.first_row
    batches = _rows(reading, file, source, opener)
    for batch in batches if source.only is None else _only(batches, source.only):
        segment = Segment(file.path, row, batch.num_rows)
        row += batch.num_rows
        if reading.filter is None:
            yield _Piece(batch, segment, 0)
        else:
            yield _filter(batch, segment, reading.columns, reading.filter)
    found = row - source.first_row
    if source.rows is not None and found != source.rows:
        raise _changed(file, {"expected": f"{source.rows:,} rows", "found": f"{found:,}"})
    on_source(source, found)


def _only(batches: Iterator[pa.RecordBatch], wanted: range) -> Iterator[pa.RecordBatch]:
    """Of a sample: the wanted rows, counted from the first of `batches`; nothing is read after the last."""
    first = 0
    for batch in batches:
        begin, end = max(wanted.start - first, 0), min(wanted.stop - first, batch.num_rows)
        if begin < end:
            yield batch.slice(begin, end - begin)
        first += batch.num_rows
        if first >= wanted.stop:
            return


def _changed(file: SourceFile, facts: dict[str, str]) -> InputError:
    fix = "run the same command again, when the file is complete"
    return InputError(
        Problem("the file has changed since the plan was made", {"file": file.path, **facts}, fix)
    )


def _rows(
    reading: ShardReading, file: SourceFile, source: Source, opener: Opener
) -> Iterator[pa.RecordBatch]:
    """A source's rows with the partition's values as columns, in the order of `wanted`.

    All files' batches have one schema, so that they can be joined.
    """
    listing, stored = reading.listing, _stored(file, reading.wanted)
    read = get_format(listing.format).read_rows
    schema = pa.schema([(name, listing.schema.field(name).type) for name in reading.wanted])
    try:
        for batch in read(file, file.footer, source.row_groups, stored, reading.chunk_rows, opener):
            yield _with_partition(batch, file, schema)
    except (KeyError, IndexError) as error:
        # What pyarrow raises where a column or row group is gone.
        raise _changed(file, {"found": str(error)}) from error


def _with_partition(batch: pa.RecordBatch, file: SourceFile, schema: pa.Schema) -> pa.RecordBatch:
    if not schema:
        return batch
    arrays = []
    for field in schema:
        if field.name in file.partition:
            value = pa.scalar(file.partition[field.name], field.type)
            arrays.append(pa.repeat(value, batch.num_rows))
        else:
            array = batch.column(field.name)
            if joinable(array.type) != field.type:
                facts = {"column": field.name, "expected": str(field.type), "found": str(array.type)}
                raise _changed(file, facts)
            if array.type != field.type:
                array = array.cast(field.type)
            arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _filter(batch: pa.RecordBatch, segment: Segment, columns: Sequence[str], row_filter: Filter) -> _Piece:
    """The rows that pass, with their places in the file where some didn't; viewed if all do."""
    passes = _evaluate(row_filter, batch)
    passed = passes.true_count
    dropped = batch.num_rows - passed
    kept = batch.select(list(columns))
    if dropped == 0:
        return _Piece(kept, segment, 0)
    places = np.flatnonzero(passes.fill_null(False).to_numpy(zero_copy_only=False)) + segment.first_row
    first = int(places[0]) if passed else segment.first_row
    rows = _take(kept, passes) if passed else kept.slice(0, 0)
    return _Piece(rows, Segment(segment.path, first, passed, places), dropped)


def _evaluate(row_filter: Filter, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for the rows that pass; computed in this thread, whose share of the cores it is."""
    table = pa.Table.from_batches([batch.select(sorted(row_filter.columns))])
    steps = [
        acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
        acero.Declaration("project", acero.ProjectNodeOptions([row_filter.expression], ["passes"])),
    ]
    result = acero.Declaration.from_sequence(steps).to_table(use_threads=False)
    return pa.concat_arrays(result.column(0).chunks)


def _take(batch: pa.RecordBatch, passes: pa.BooleanArray) -> pa.RecordBatch:
    """Rows for which `passes` is true. Arrow can't take from views: they go by another type."""
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if not any(column.type in views for column in batch.columns):
        return batch.filter(passes)
    plain = [column.cast(views.get(column.type, column.type)) for column in batch.columns]
    taken = pa.RecordBatch.from_arrays(plain, batch.schema.names).filter(passes)
    arrays = [column.cast(field.type) for column, field in zip(taken.columns, batch.schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
