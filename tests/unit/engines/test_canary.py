"""A worker that finds something else is told from one whose last digits differ."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchonnx.engines.ray.canary import BYTES, difference, few
from batchonnx.scoring.stream import from_bytes, to_bytes


def rows(**columns: object) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array(values) for name, values in columns.items()})


def test_the_last_digits_of_floats_may_differ() -> None:
    scores = np.linspace(-3, 5, 32, dtype=np.float32)
    assert difference(rows(s=scores), rows(s=np.nextafter(scores, np.float32(9)))) is None
    nested = [[{"label": "a", "score": 0.5}]], [[{"label": "a", "score": 0.5000001}]]
    assert difference(rows(top=nested[0]), rows(top=nested[1])) is None
    assert difference(rows(s=[float("nan")]), rows(s=[float("nan")])) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([1.0, 2.0], [1.0, 2.1]),
        ([1.0, 2.0], [1.0, float("nan")]),
        ([1, 2], [1, 3]),
        (["a"], ["b"]),
        ([[1.0], [2.0]], [[1.0], [3.0]]),
        ([1.0], [1]),
        ([1.0, 2.0], [1.0]),
    ],
)
def test_all_else_is_a_difference(ours: list, theirs: list) -> None:
    assert difference(rows(y=ours), rows(y=theirs)) is not None


def test_rows_travel_unchanged_and_are_few() -> None:
    batch = rows(i=range(1_000))
    assert from_bytes(to_bytes(batch)).equals(batch)
    assert few(batch).num_rows == 32
    assert few(rows(b=[b"x" * (BYTES // 4)] * 10)).num_rows <= 4
    assert few(rows(b=[b"x" * (2 * BYTES)])).num_rows == 0
