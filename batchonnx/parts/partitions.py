"""Rows by the values of some columns: Hive's folders, `day=2026-11-22/country=DE`, as pyarrow names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from batchonnx.parts.text import from_text, is_words, to_text

NULL = "__HIVE_DEFAULT_PARTITION__"


def is_partition_type(kind: pa.DataType) -> bool:
    """Whether values of a type can be in a folder's name: text, integers, booleans, dates."""
    if pat.is_dictionary(kind):
        return is_partition_type(kind.value_type)
    return (
        pat.is_null(kind)
        or is_words(kind)
        or pat.is_integer(kind)
        or pat.is_boolean(kind)
        or pat.is_date(kind)
    )


def split(rows: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each folder that some of the rows belong to, in the order of its first row; int64[n]: which they are.

    Raises ValueError for a value that is NULL's very text.
    """
    names: list[str] = [""]
    codes = np.zeros(rows.num_rows, np.int64)
    for column in columns:
        found = to_text(rows.column(column)).dictionary_encode(null_encoding="encode")
        values = [f"{column}={_escaped(value)}" for value in found.dictionary.to_pylist()]
        codes = codes * len(values) + found.indices.to_numpy(zero_copy_only=False)
        names = [f"{name}/{value}" if name else value for name in names for value in values]
    present, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(present)))
    places = np.split(order, ends[:-1])
    for number in np.argsort(first):
        yield names[present[number]], places[number]


def values_of(path: str, columns: Sequence[str], schema: pa.Schema) -> dict[str, pa.Scalar]:
    """What a file's folders say of all its rows. schema: has these columns' types."""
    if not columns:
        return {}
    texts = [folder.partition("=")[2] for folder in path.split("/")[:-1]][-len(columns) :]
    values = {}
    for column, text in zip(columns, texts, strict=True):
        told = None if text == NULL else unquote(text)
        values[column] = from_text(pa.array([told], pa.string()), schema.field(column).type)[0]
    return values


def with_values(rows: pa.RecordBatch, values: dict[str, pa.Scalar], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of a file with the columns that its folders tell, in the order of the schema."""
    arrays = [
        pa.repeat(values[field.name], rows.num_rows) if field.name in values else rows.column(field.name)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([(f.name, f.type) for f in schema]))


def _escaped(value: str | None) -> str:
    if value is None:
        return NULL
    if value == NULL:
        raise ValueError(NULL)
    return quote(value, safe="")
