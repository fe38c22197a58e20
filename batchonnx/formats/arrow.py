"""Arrow IPC: the file format (also Feather), whose record batches are row groups, and the stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.ipc as ipc

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.registry import Opener
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import open_input
from batchonnx.storage.ranged import LOOK_BYTES
from batchonnx.storage.spans import SMALL_BYTES, Span, sequential, whole

_MAGIC = b"ARROW1"


def read_footer(file: FileEntry) -> Footer:
    """Schema and record batches; a batch's rows are told by its first column alone."""
    try:
        with open_input(file) as source:
            if source.read(len(_MAGIC)) != _MAGIC:
                source.seek(0)
                schema = ipc.open_stream(source).schema
                return Footer(schema, (RowGroup(None, file.size),))
            source.seek(0)
            reader = ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=[0]))
            count = reader.num_record_batches
            groups = tuple(RowGroup(reader.get_batch(i).num_rows, file.size // count) for i in range(count))
            source.seek(0)
            return Footer(ipc.open_file(source).schema, groups)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error


def spans(file: FileEntry, footer: Footer, row_groups: Sequence[int], columns: Sequence[str]) -> list[Span]:
    """About where the record batches lie, if they are of one size; see `formats.registry.Format`."""
    if file.size <= SMALL_BYTES:
        return whole(file)
    count = len(footer.row_groups)
    end = file.size - LOOK_BYTES
    first, last = min(row_groups, default=0), max(row_groups, default=-1) + 1
    return sequential(first * end // count, last * end // count)


def read_rows(
    file: FileEntry,
    footer: Footer,
    row_groups: Sequence[int],
    columns: Sequence[str],
    chunk_rows: int,
    opener: Opener = open_input,
) -> Iterator[pa.RecordBatch]:
    """Rows of the record batches; see `formats.registry.Format`."""
    try:
        with opener(file) as source:
            fields = [footer.schema.get_field_index(name) for name in columns]
            for batch in _batches(source, row_groups, fields):
                chosen = batch.select(list(columns))
                for first in range(0, batch.num_rows, chunk_rows):
                    yield chosen.slice(first, chunk_rows)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: no batch of that number
        raise _broken(file.path, error) from error


def _batches(
    source: pa.NativeFile, row_groups: Sequence[int], fields: Sequence[int]
) -> Iterator[pa.RecordBatch]:
    options = ipc.IpcReadOptions(included_fields=sorted(fields))
    if source.read(len(_MAGIC)) == _MAGIC:
        source.seek(0)
        reader = ipc.open_file(source, options=options)
        for group in row_groups:
            yield reader.get_batch(group)
        return
    source.seek(0)
    yield from ipc.open_stream(source, options=options)


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "write or copy it again; or say what it is with input.format"
    return InputError(Problem("the Arrow file can't be read", facts, fix))
