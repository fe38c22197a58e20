"""A record batch as bytes, for another process; and arrays of any shape as a record batch."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

_SHAPES = b"shapes"


def to_bytes(rows: pa.RecordBatch) -> bytes:
    """As an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.RecordBatch:
    """From an Arrow stream of one batch."""
    return pa.ipc.open_stream(data).read_next_batch()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    """One row with a list of each array's values; their shapes are the schema's metadata. Text is objects."""
    columns = {}
    for name, array in arrays.items():
        kind = pa.large_string() if array.dtype == object else None
        values = pa.array(np.ascontiguousarray(array).reshape(-1), kind)
        columns[name] = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
    shapes = json.dumps([array.shape for array in arrays.values()])
    return pa.record_batch(columns).replace_schema_metadata({_SHAPES: shapes.encode()})


def arrays_of(row: pa.RecordBatch) -> dict[str, np.ndarray]:
    """The arrays again: views, that can't be written to, where the values are numbers."""
    shapes = json.loads((row.schema.metadata or {})[_SHAPES])
    values = (column.values.to_numpy(zero_copy_only=False) for column in row.columns)
    return {
        name: array.reshape(shape)
        for name, array, shape in zip(row.schema.names, values, shapes, strict=True)
    }
