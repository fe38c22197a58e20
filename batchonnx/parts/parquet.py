"""Parts in Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from batchonnx.parts.kinds import Writer


class ParquetFile:
    """See `kinds.Writer`.

    Floats are written without a dictionary: predictions hardly repeat, and trying costs ten times the
    encoding itself.
    """

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema, compression: str) -> None:
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            compression=compression,
            use_dictionary=_columns_that_repeat(schema),
            write_page_index=True,
            write_page_checksum=True,
        )

    def write(self, rows: pa.Table) -> None:
        """A row group."""
        self._writer.write_table(rows, row_group_size=max(1, rows.num_rows))

    def close(self) -> None:
        """The footer."""
        self._writer.close()


def open_writer(
    sink: pa.NativeFile, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
) -> Writer:
    """See `kinds.Kind`."""
    return ParquetFile(sink, schema.with_metadata(dict(lineage)) if lineage else schema, compression)


def read(
    source: pa.NativeFile, compression: str, schema: pa.Schema | None, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """See `kinds.Kind`."""
    with pq.ParquetFile(source) as file:
        names = list(file.schema_arrow.names if columns is None else columns)
        for batch in file.iter_batches(columns=names, use_threads=False):
            yield batch.select(names)


def misfits(kind: pa.DataType) -> Iterator[pa.DataType]:
    """What Parquet can't hold is refused elsewhere: it can't be put aside with bad rows, either."""
    yield from ()


def _columns_that_repeat(schema: pa.Schema) -> list[str]:
    return [path for field in schema for path in _leaves(field.name, field.type) if path]


def _leaves(path: str, arrow_type: pa.DataType) -> Sequence[str]:
    """Parquet paths of the leaves worth a dictionary: everything but floats."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _leaves(path, arrow_type.storage_type)
    if pat.is_fixed_size_list(arrow_type) or pat.is_list(arrow_type) or pat.is_large_list(arrow_type):
        return _leaves(f"{path}.list.element", arrow_type.value_type)
    if pat.is_struct(arrow_type):
        return [leaf for child in arrow_type for leaf in _leaves(f"{path}.{child.name}", child.type)]
    if pat.is_map(arrow_type):
        keys = _leaves(f"{path}.key_value.key", arrow_type.key_type)
        return [*keys, *_leaves(f"{path}.key_value.value", arrow_type.item_type)]
    return [] if pat.is_floating(arrow_type) else [path]
