"""Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.parquet_footers import footer_bytes
from batchonnx.formats.registry import Opener
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import is_ranged, open_input
from batchonnx.storage.spans import SMALL_BYTES, Span, coalesced, side_by_side, whole

BUFFER_BYTES = 1 << 16
"""Pages are read through a small buffer: measured fastest from a local disk, and memory stays
bounded however large a row group is."""
WHOLE_GROUP_BYTES = 128 << 20
"""A row group of which no more is wanted is fetched as a whole, and its columns are read where they lie; of a
larger one, the columns' pages come side by side."""


def read_footer(file: FileEntry) -> Footer:
    """Schema, row groups and null counts, from the file's footer."""
    try:
        with open_footer(file) as source:
            metadata = pq.read_metadata(source)
        schema = metadata.schema.to_arrow_schema()
        groups = tuple(
            RowGroup(metadata.row_group(i).num_rows, metadata.row_group(i).total_byte_size)
            for i in range(metadata.num_row_groups)
        )
        return Footer(schema, groups, _nulls(metadata, schema))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file, error) from error


def open_footer(file: FileEntry) -> pa.NativeFile:
    """Something that ends as the file does, with its footer at least. For an object, one or no request."""
    return pa.BufferReader(footer_bytes(file)) if is_ranged(file.path) else open_input(file)


def spans(file: FileEntry, footer: Footer, row_groups: Sequence[int], columns: Sequence[str]) -> list[Span]:
    """The columns' chunks, row group after row group; see `formats.registry.Format`."""
    if not columns:
        return []
    if file.size <= SMALL_BYTES:
        return whole(file)
    metadata = _metadata(file)
    found: list[Span] = []
    for chunks in (_chunks(metadata, group, columns) for group in row_groups):
        in_whole = sum(stop - start for start, stop in chunks) <= WHOLE_GROUP_BYTES
        found += coalesced(chunks) if in_whole else side_by_side(chunks, WHOLE_GROUP_BYTES)
    return found


def read_rows(
    file: FileEntry,
    footer: Footer,
    row_groups: Sequence[int],
    columns: Sequence[str],
    chunk_rows: int,
    opener: Opener = open_input,
) -> Iterator[pa.RecordBatch]:
    """Rows of the row groups; see `formats.registry.Format`."""
    group, columns = 0, list(columns)
    try:
        if not columns:
            metadata = _metadata(file)
            for group in row_groups:
                yield from _without_columns(metadata.row_group(group).num_rows, chunk_rows)
            return
        with opener(file) as source:
            known, buffer_bytes = _fetched(file, row_groups, columns)
            reader = pq.ParquetFile(
                source,
                metadata=known,
                pre_buffer=False,
                buffer_size=buffer_bytes,
                page_checksum_verification=True,
            )
            for group in row_groups:
                for batch in reader.iter_batches(
                    chunk_rows, row_groups=[group], columns=columns, use_threads=False
                ):
                    yield batch if batch.schema.names == columns else batch.select(columns)
    except (pa.ArrowException, OSError) as error:
        facts = {"file": file.path, "row group": str(group), "found": str(error).splitlines()[0][:300]}
        fix = "the file is damaged: write it again"
        raise InputError(Problem("a row group can't be read", facts, fix)) from error


def _fetched(
    file: FileEntry, row_groups: Sequence[int], columns: Sequence[str]
) -> tuple[pq.FileMetaData | None, int]:
    """What is known of a file before it is opened, and the buffer to read its pages through (0: none)."""
    if not is_ranged(file.path):
        return None, BUFFER_BYTES
    if file.size <= SMALL_BYTES:
        return None, 0
    metadata = _metadata(file)
    largest = max(
        (sum(stop - start for start, stop in _chunks(metadata, group, columns)) for group in row_groups),
        default=0,
    )
    return metadata, 0 if largest <= WHOLE_GROUP_BYTES else BUFFER_BYTES


def _metadata(file: FileEntry) -> pq.FileMetaData:
    with open_footer(file) as source:
        return pq.read_metadata(source)


def _chunks(metadata: pq.FileMetaData, group: int, columns: Sequence[str]) -> list[tuple[int, int]]:
    """Where the columns' bytes of a row group begin and end."""
    wanted, found = set(columns), []
    row_group = metadata.row_group(group)
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        path = chunk.path_in_schema
        if path in wanted or path.split(".")[0] in wanted:
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < start:
                start = chunk.dictionary_page_offset
            found.append((start, start + chunk.total_compressed_size))
    return found


def _without_columns(rows: int, chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """A job may read no column at all: the model is fed constants, one answer a row."""
    for first in range(0, rows, chunk_rows):
        length = min(chunk_rows, rows - first)
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * length, pa.struct([])))


def _nulls(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Nulls of each top-level leaf column, where every row group's statistics say."""
    nulls: Counter[str] = Counter()
    unknown = {field.name for field in schema if pa.types.is_nested(field.type)}
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count:
                unknown.add(column.path_in_schema.split(".")[0])
            elif statistics.null_count:
                nulls[column.path_in_schema] += statistics.null_count
    return {name: count for name, count in nulls.items() if name in schema.names and name not in unknown}


def _broken(file: FileEntry, error: Exception) -> InputError:
    size = file.size
    facts = {"file": file.path, "size": f"{size:,} bytes", "found": str(error).splitlines()[0][:300]}
    if size == 0:
        return InputError(Problem("the Parquet file is empty", facts, "write it again, or remove it"))
    with open_input(file) as source:
        head = source.read(4)
        source.seek(max(0, size - 4))
        tail = source.read(4)
    facts["found"] = f"first bytes {head!r}, last bytes {tail!r}"
    facts["expected"] = f"{b'PAR1'!r} at both ends"
    if head == b"PAR1" and tail != b"PAR1":
        return InputError(Problem("the Parquet file is cut short", facts, "write or copy it again"))
    if head != b"PAR1":
        fix = "say what it is with input.format, or leave it out"
        return InputError(Problem("the file isn't Parquet", facts, fix))
    facts["found"] = str(error).splitlines()[0][:300]
    return InputError(Problem("the Parquet file's footer is damaged", facts, "write or copy it again"))
