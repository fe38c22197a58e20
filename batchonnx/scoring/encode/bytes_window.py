"""Binary columns as integers: the first and last bytes of each value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import BytesColumn
from batchonnx.scoring.encode.columns import bad_rows


def load_bytes(feature: BytesColumn, chunk: pa.RecordBatch) -> np.ndarray:
    """[n, head + tail] of the input's dtype: the front from the left, the back right-aligned.

    Where there is no byte there is `pad`. Raises BadRow for a null.
    """
    array = chunk.column(feature.column)
    window = feature.window
    out = np.full((len(array), window.head + window.tail), window.pad, np.dtype(feature.input.dtype))
    if array.null_count:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        raise bad_rows(missing, feature.column, lambda _: "null, a value with bytes is wanted")
    for row, scalar in zip(out, array, strict=True):
        value = memoryview(scalar.as_buffer())
        reach = window.window or len(value)
        if window.head:
            front = bytes(value[:reach])
            front = (front.lstrip() if window.strip else front)[: window.head]
            row[: len(front)] = np.frombuffer(front, np.uint8)
        if window.tail:
            back = bytes(value[max(0, len(value) - reach) :])
            back = (back.rstrip() if window.strip else back)[-window.tail :]
            row[len(row) - len(back) :] = np.frombuffer(back, np.uint8)
    return out
