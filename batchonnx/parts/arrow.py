"""Parts as Arrow IPC files: a record batch for each row group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.types as pat

from batchonnx.parts.kinds import Writer


class ArrowFile:
    """See `kinds.Writer`."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema, compression: str) -> None:
        codec = None if compression == "none" else compression
        # In this thread: whose share of the cores it is.
        options = ipc.IpcWriteOptions(compression=codec, use_threads=False)
        self._schema = schema
        self._writer = ipc.new_file(sink, schema, options=options)

    def write(self, rows: pa.Table) -> None:
        """A record batch."""
        columns = [_afresh(column.combine_chunks()) for column in rows.cast(self._schema).columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """The footer."""
        self._writer.close()


def open_writer(
    sink: pa.NativeFile, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
) -> Writer:
    """See `kinds.Kind`. The lineage is the schema's metadata."""
    return ArrowFile(sink, written_schema(schema).with_metadata(dict(lineage)), compression)


def read(
    source: pa.NativeFile, compression: str, schema: pa.Schema | None, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """See `kinds.Kind`."""
    with ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            batch = batch if columns is None else batch.select(list(columns))
            if schema is not None:
                batch = batch.cast(pa.schema([schema.field(name) for name in batch.schema.names]))
            yield batch


def misfits(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A dictionary within a list: a file has one for all record batches. A view in one can't be copied."""
    if pat.is_dictionary(kind):
        yield from misfits(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType):
        yield from misfits(kind.storage_type)
    else:
        inner = (kind.field(place).type for place in range(kind.num_fields))
        yield from (one for child in inner for one in _shared(child))


def written_schema(schema: pa.Schema) -> pa.Schema:
    """Columns with dictionaries as their plain values, and views as copies: parts share nothing."""
    return pa.schema([(field.name, _written_as(field.type)) for field in schema])


def _written_as(kind: pa.DataType) -> pa.DataType:
    if pat.is_dictionary(kind):
        return _written_as(kind.value_type)
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def _afresh(column: pa.Array) -> pa.Array:
    """The values in memory of their own, so that the same rows give the same bytes.

    A slice's last bits, and what lies below a null, would be written as well.
    """
    if isinstance(column, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(column.type, _afresh(column.storage))
    return column.take(pa.array(np.arange(len(column))))


def _shared(kind: pa.DataType) -> Iterator[pa.DataType]:
    if pat.is_dictionary(kind) or kind in (pa.string_view(), pa.binary_view()):
        yield kind
    elif pat.is_nested(kind):
        for place in range(kind.num_fields):
            yield from _shared(kind.field(place).type)
