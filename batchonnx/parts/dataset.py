"""A result's files as a pyarrow dataset."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import pyarrow.types as pat
from pyarrow.fs import FileSystem

from batchonnx.parts.arrow import written_schema
from batchonnx.parts.layout import Layout


def open_dataset(paths: Sequence[str], root: str, filesystem: FileSystem, layout: Layout) -> pads.Dataset:
    """Exactly these files, with the columns that their folders tell. root: the result's folder.

    layout: of any format but jsonl, whose numbers that aren't finite pyarrow doesn't read.
    """
    schema = layout.arrow_schema
    if schema is None:
        return pads.dataset(list(paths), filesystem=filesystem, format="parquet")
    schema = _readable(schema, layout.format)
    if not paths:
        return pads.FileSystemDataset.from_paths([], schema, _format(layout), filesystem)
    keys = pa.schema([schema.field(name) for name in layout.partition_by])
    folders = pads.partitioning(keys, flavor="hive") if layout.partition_by else None
    return pads.dataset(
        list(paths),
        schema=schema,
        format=_format(layout),
        filesystem=filesystem,
        partitioning=folders,
        partition_base_dir=root,
    )


def _format(layout: Layout) -> pads.FileFormat:
    if layout.format == "parquet":
        return pads.ParquetFileFormat()
    if layout.format == "arrow":
        return pads.IpcFileFormat()
    assert layout.stored_schema is not None
    return pads.CsvFileFormat(
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types=_readable(layout.stored_schema, "csv"),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _readable(schema: pa.Schema, kind: str) -> pa.Schema:
    """The types that pyarrow reads a format's columns as."""
    if kind == "arrow":
        return written_schema(schema)
    if kind == "csv":
        return pa.schema([(field.name, _of_csv(field.type)) for field in schema])
    return schema


def _of_csv(kind: pa.DataType) -> pa.DataType:
    if pat.is_dictionary(kind):
        return _of_csv(kind.value_type)
    return {pa.string_view(): pa.string(), pa.float16(): pa.float32()}.get(kind, kind)
