"""From a listing to shards: the unit of work, of commit and of retry."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from batchonnx.errors import InputError, Problem
from batchonnx.formats.parquet import open_footer
from batchonnx.planning.filter import Filter
from batchonnx.planning.footers import map_files
from batchonnx.planning.listing import Listing, SourceFile

SMALLEST_BYTES, LARGEST_BYTES = 256 << 10, 128 << 20
SHARDS_WANTED = 64
"""Enough shards to keep workers evenly busy and to lose little by a crash; large enough that a
commit for each costs nothing. The number of workers has no say: parts don't depend on it."""

MOST_SOURCES = 4096


@dataclass(frozen=True)
class Source:
    """A file's share of a shard: a run of its row groups.

    file: index into the listing. first_row: row index, within the file, of the first row.
    rows: None where only reading tells. only: of a sample, the rows of these row groups that belong to it;
    None: all of them.
    """

    file: int
    row_groups: tuple[int, ...]
    first_row: int
    rows: int | None
    only: range | None = None


@dataclass(frozen=True)
class Shard:
    """A run of row groups, of one file or of many small ones."""

    number: int
    sources: tuple[Source, ...]
    rows: int | None
    bytes: int


@dataclass(frozen=True)
class Shards:
    """shards, and the rows of row groups that the filter leaves out unread."""

    shards: tuple[Shard, ...]
    pruned_rows: int


def largest_first(shards: Iterable[Shard], last: Container[int] = ()) -> list[Shard]:
    """The order of work, so that what ends it is small; last: numbers of shards that come at the end."""
    return sorted(shards, key=lambda shard: (shard.number in last, -shard.bytes))


@dataclass(frozen=True)
class _Unit:
    """What can't be divided: a row group, or a file whose row groups have unknown lengths."""

    source: Source
    bytes: int


def make_shards(
    listing: Listing, row_filter: Filter | None, done: Set[tuple[int, int]] = frozenset(), first: int = 0
) -> Shards:
    """Gather row groups, in the listing's order, into shards of about a 64th of the input.

    A pure function of its arguments. Row groups that partition values or statistics show to
    have no row for the filter are left out. Without any row there is one shard, whose part tells
    readers the schema.
    done: files, by their place in the listing, and row groups that need no shard.
    first: the number of the first shard.
    """
    every = [unit for index, file in enumerate(listing.files) for unit in _units(index, file)]
    units = [
        u for u in every if not (done and {(u.source.file, group) for group in u.source.row_groups} <= done)
    ]
    kept = units
    if row_filter is not None:
        survivors = _surviving_groups(listing, row_filter)
        kept = [unit for unit in units if set(unit.source.row_groups) & survivors[unit.source.file]]
    pruned = sum(u.source.rows or 0 for u in units) - sum(u.source.rows or 0 for u in kept)
    target = min(max(sum(unit.bytes for unit in kept) // SHARDS_WANTED, SMALLEST_BYTES), LARGEST_BYTES)
    gathered = list(_gather(kept, target)) or ([[]] if not done else [])
    shards = tuple(_shard(number, group) for number, group in enumerate(gathered, first))
    return Shards(shards, pruned)


def _units(index: int, file: SourceFile) -> Iterator[_Unit]:
    groups = file.footer.row_groups
    if any(group.rows is None for group in groups):
        yield _Unit(Source(index, tuple(range(len(groups))), 0, None), sum(group.bytes for group in groups))
        return
    first = 0
    for number, group in enumerate(groups):
        if group.rows:
            yield _Unit(Source(index, (number,), first, group.rows), group.bytes)
            first += group.rows


def _gather(units: Sequence[_Unit], target: int) -> Iterator[list[_Unit]]:
    gathered: list[_Unit] = []
    size = 0
    for unit in units:
        if gathered and (size + unit.bytes > target or len(gathered) == MOST_SOURCES):
            yield gathered
            gathered, size = [], 0
        gathered.append(unit)
        size += unit.bytes
    if gathered:
        yield gathered


def _shard(number: int, units: Sequence[_Unit]) -> Shard:
    sources: list[Source] = []
    for unit in units:
        last = sources[-1] if sources else None
        if last is not None and _continues(last, unit.source):
            rows = (last.rows or 0) + (unit.source.rows or 0)
            groups = last.row_groups + unit.source.row_groups
            sources[-1] = Source(last.file, groups, last.first_row, rows)
        else:
            sources.append(unit.source)
    known = [source.rows for source in sources if source.rows is not None]
    total = sum(known) if len(known) == len(sources) else None
    size = sum(unit.bytes for unit in units)
    return Shard(number, tuple(sources), total, size)


def _continues(last: Source, following: Source) -> bool:
    if last.file != following.file or last.rows is None:
        return False
    return last.first_row + last.rows == following.first_row


def _surviving_groups(listing: Listing, row_filter: Filter) -> list[frozenset[int]]:
    """For each file, the row groups that may hold a row for the filter.

    All of them where rows are known only by reading: rows that nobody counted can't be left out.
    """
    schema = pa.schema([listing.schema.field(name) for name in sorted(row_filter.columns)])
    may_match = _matching_partitions(listing, row_filter, schema)
    has_statistics = listing.format == "parquet" and not row_filter.columns <= {*listing.partition_columns}

    excluded = {listing.files[index].path for index in range(len(listing.files)) if index not in may_match}

    def survivors(file: SourceFile) -> frozenset[int]:
        every = frozenset(range(len(file.footer.row_groups)))
        if file.path in excluded:
            return every if file.footer.rows is None else frozenset()
        return _matching_row_groups(file, row_filter, schema) if has_statistics else every

    return map_files(survivors, listing.files)


def _matching_partitions(listing: Listing, row_filter: Filter, schema: pa.Schema) -> set[int]:
    """Files, by their place in the listing, whose folders' names don't speak against the filter."""
    if not row_filter.columns & {*listing.partition_columns}:
        return set(range(len(listing.files)))
    claims = [_partition_expression(file, schema) for file in listing.files]
    # Nothing is opened: the data set's paths are the places in the listing.
    places = [str(place) for place in range(len(listing.files))]
    dataset = pads.FileSystemDataset.from_paths(
        places, schema, pads.ParquetFileFormat(), pafs.LocalFileSystem(), claims
    )
    return {int(fragment.path) for fragment in dataset.get_fragments(row_filter.pruning)}


def _matching_row_groups(file: SourceFile, row_filter: Filter, schema: pa.Schema) -> frozenset[int]:
    claim = _partition_expression(file, schema)
    try:
        fragment = pads.ParquetFileFormat().make_fragment(open_footer(file), partition_expression=claim)
        fragment.ensure_complete_metadata()
    except (OSError, pa.ArrowException) as error:
        facts = {"file": file.path, "found": str(error).splitlines()[0][:300]}
        fix = "run the same command again, when the input is complete"
        raise InputError(Problem("a file's statistics can't be read", facts, fix)) from error
    try:
        parts = fragment.split_by_row_group(row_filter.pruning, schema=schema)
    except pa.ArrowException:
        # Arrow holds statistics against an expression by casts that refuse what they can't hold exactly: an
        # integer of more than 53 bits beside a float. The rows themselves are compared all the same.
        return frozenset(range(len(file.footer.row_groups)))
    return frozenset(group.id for part in parts for group in part.row_groups)


def _partition_expression(file: SourceFile, schema: pa.Schema) -> pc.Expression:
    """What the folders' names say of every row in the file, of the columns in the schema."""
    expression = pc.scalar(True)
    for key, value in file.partition.items():
        if key in schema.names:
            column = pc.field(key)
            claim = column.is_null() if value is None else column == pa.scalar(value, schema.field(key).type)
            expression = expression & claim
    return expression
