"""Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.storage.paths import open_input

BUFFER_BYTES = 1 << 16
"""Pages are read through a small buffer: measured fastest from a local disk, and memory stays
bounded however large a row group is."""


def read_footer(path: str, size: int) -> Footer:
    """Schema, row groups and null counts, from the file's footer."""
    try:
        with open_input(path) as source:
            metadata = pq.ParquetFile(source).metadata
            schema = metadata.schema.to_arrow_schema()
            groups = tuple(
                RowGroup(metadata.row_group(i).num_rows, metadata.row_group(i).total_byte_size)
                for i in range(metadata.num_row_groups)
            )
            return Footer(schema, groups, _nulls(metadata, schema))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, size, error) from error


def read_rows(
    path: str, footer: Footer, row_groups: Sequence[int], columns: Sequence[str], chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """Rows of the row groups; see `formats.registry.Format`."""
    group, columns = 0, list(columns)
    try:
        with open_input(path) as source:
            file = pq.ParquetFile(
                source, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
            if not columns:
                for group in row_groups:
                    yield from _without_columns(file.metadata.row_group(group).num_rows, chunk_rows)
                return
            for group in row_groups:
                for batch in file.iter_batches(
                    chunk_rows, row_groups=[group], columns=columns, use_threads=False
                ):
                    yield batch if batch.schema.names == columns else batch.select(columns)
    except (pa.ArrowException, OSError) as error:
        facts = {"file": path, "row group": str(group), "found": str(error).splitlines()[0][:300]}
        fix = "the file is damaged: write it again"
        raise InputError(Problem("a row group can't be read", facts, fix)) from error


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


def _broken(path: str, size: int, error: Exception) -> InputError:
    facts = {"file": path, "size": f"{size:,} bytes", "found": str(error).splitlines()[0][:300]}
    if size == 0:
        return InputError(Problem("the Parquet file is empty", facts, "write it again, or remove it"))
    with open_input(path) as source:
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
