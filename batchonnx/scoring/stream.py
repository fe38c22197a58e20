"""A record batch as bytes, for another process."""

from __future__ import annotations

import pyarrow as pa


def to_bytes(rows: pa.RecordBatch) -> bytes:
    """As an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.RecordBatch:
    """From an Arrow stream of one batch."""
    return pa.ipc.open_stream(data).read_next_batch()
