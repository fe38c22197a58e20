"""Bytes of each row in memory, of what has no fixed width: they follow from the values alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat


def variable_bytes(rows: pa.RecordBatch) -> np.ndarray | None:
    """int64[rows]: bytes of text, bytes and lists in each row; None where every column has a fixed width."""
    return _sum(_sizes(column) for column in rows.columns)


def _sum(parts: Iterable[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.asarray(np.sum(known, axis=0, dtype=np.int64)) if known else None


def _sizes(column: pa.Array) -> np.ndarray | None:
    """Bytes of each value; None if all have the same."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(column.storage)
    if pat.is_string_view(kind) or pat.is_binary_view(kind):
        column = column.cast(pa.large_binary() if pat.is_binary_view(kind) else pa.large_string())
        kind = column.type
    if pat.is_string(kind) or pat.is_large_string(kind) or pat.is_binary(kind) or pat.is_large_binary(kind):
        return np.asarray(pc.binary_length(column).fill_null(0).to_numpy(), np.int64)
    if pat.is_struct(kind):
        return _sum(_sizes(child) for child in column.flatten())
    if pat.is_list(kind) or pat.is_large_list(kind):
        return _of_lists(np.asarray(pc.list_value_length(column).fill_null(0)), pc.list_flatten(column))
    if pat.is_map(kind):
        offsets = np.asarray(column.offsets)
        return _of_lists(np.diff(offsets), column.items.slice(offsets[0], offsets[-1] - offsets[0]))
    return None


def _of_lists(lengths: np.ndarray, values: pa.Array) -> np.ndarray:
    """Of lists of these lengths, one behind the other."""
    inner = _sizes(values)
    if inner is None:
        return np.asarray(lengths * _width(values.type), np.int64)
    ends = np.cumsum(lengths)
    before = np.concatenate([[0], np.cumsum(inner)])
    return np.asarray(before[ends] - before[ends - lengths], np.int64)


def _width(kind: pa.DataType) -> int:
    """Bytes of a value of fixed width."""
    if isinstance(kind, pa.BaseExtensionType):
        return _width(kind.storage_type)
    if pat.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if pat.is_struct(kind):
        return sum(_width(child.type) for child in kind)
    try:
        return (int(kind.bit_width) + 7) // 8
    except ValueError:
        return 8
