"""Parts in CSV: text in quotes, anything else without, and nothing at all for null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.types as pat

from batchonnx.parts.kinds import Writer
from batchonnx.parts.text import from_text, is_plain, packed, unpacked

BLOCK_BYTES = 4 << 20


class CsvFile:
    """See `kinds.Writer`."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema, compression: str) -> None:
        self._schema = pa.schema([(field.name, _written_as(field.type)) for field in schema])
        self._stream = packed(sink, compression)
        self._is_packed = compression != "none"
        self._writer = pacsv.CSVWriter(self._stream, self._schema)

    def write(self, rows: pa.Table) -> None:
        """Lines."""
        self._writer.write_table(rows.cast(self._schema))

    def close(self) -> None:
        """What is left in the packer."""
        self._writer.close()
        if self._is_packed:
            self._stream.close()


def open_writer(
    sink: pa.NativeFile, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
) -> Writer:
    """See `kinds.Kind`. There is no place for the lineage."""
    return CsvFile(sink, schema, compression)


def read(
    source: pa.NativeFile, compression: str, schema: pa.Schema | None, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """See `kinds.Kind`."""
    assert schema is not None, "only a schema tells the types in a CSV file"
    names = list(schema.names if columns is None else columns)
    with pacsv.open_csv(
        unpacked(source, compression),
        read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in schema.names},
            include_columns=names or schema.names,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ) as reader:
        wanted = pa.schema([schema.field(name) for name in names])
        for block in reader:
            arrays = [from_text(block.column(field.name), field.type) for field in wanted]
            yield _batch(arrays, wanted, block.num_rows)


def misfits(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Whatever isn't one value in a cell."""
    if not is_plain(kind):
        yield kind


def _written_as(kind: pa.DataType) -> pa.DataType:
    """A type that Arrow writes, with the same text."""
    if pat.is_dictionary(kind):
        return _written_as(kind.value_type)
    return {pa.string_view(): pa.string(), pa.float16(): pa.float32()}.get(kind, kind)


def _batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not arrays:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
