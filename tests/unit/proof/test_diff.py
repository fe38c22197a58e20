"""Rows dealt out to files, and values compared in pairs: as a plain loop over all rows would do it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.proof.diff.columns import ColumnTally
from batchonnx.proof.diff.spill import places_of, read_back, spill

TEXT = st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1, max_size=40)
WHOLE = st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=40)


@given(st.one_of(TEXT.map(pa.array), WHOLE.map(lambda x: pa.array(x, pa.int64()))), st.integers(1, 9))
def test_a_value_has_one_place_whatever_stands_around_it(values: pa.Array, number: int) -> None:
    together = places_of(values, number)
    assert together.min() >= 0
    assert together.max() < number
    for i in range(len(values)):
        assert places_of(values.slice(i, 1), number)[0] == together[i]
        assert places_of(values.take(pa.array([i])), number)[0] == together[i]


@given(TEXT, st.integers(1, 7), st.integers(1, 10))
def test_no_row_is_lost_on_the_way_to_disk(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str | None], number: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    table = pa.table({"k": pa.array(keys, pa.string()), "row": range(len(keys))})
    paths = spill(table.to_batches(size), "k", folder / "new", number)
    found = [table for path in paths if (table := read_back(path)) is not None]
    rows = [row for one in found for row in one.to_pylist()]
    assert sorted(row["row"] for row in rows) == [*range(len(keys))]
    where = [{row["k"] for row in one.to_pylist()} for one in found]
    assert sum(map(len, where)) == len({*keys}), "rows of one key lie together"


def test_many_keys_are_spread_evenly() -> None:
    for values in (pa.array(range(100_000)), pa.array([f"id-{i:06}" for i in range(100_000)])):
        counts = np.bincount(places_of(values, 16), minlength=16)
        assert counts.min() > 0.8 * counts.mean()
        assert counts.max() < 1.2 * counts.mean()


NUMBER = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0, math.nan]))


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=30), st.integers(1, 5))
def test_numbers_change_where_they_differ(pairs: list[tuple[float | None, float | None]], size: int) -> None:
    """Null and NaN are one, as everywhere with floats."""
    tally = ColumnTally("c", "float")
    a, b = (pa.array([pair[i] for pair in pairs], pa.float32()) for i in (0, 1))
    for start in range(0, len(pairs), size):
        tally.add(a.slice(start, size), b.slice(start, size), lambda i, start=start: str(start + i))
    found = tally.result()

    def same(x: float | None, y: float | None) -> bool:
        x, y = (math.nan if v is None else v for v in (x, y))
        return x == y or (math.isnan(x) and math.isnan(y))

    assert found.compared == len(pairs)
    assert found.changed == sum(not same(x, y) for x, y in pairs)
    known = [(y - x, str(i)) for i, (x, y) in enumerate(pairs) if x is not None and y is not None]
    known = [(d, key) for d, key in known if math.isfinite(d)]
    if known:
        assert found.largest == max(abs(d) for d, _ in known)
        assert found.shift == pytest.approx(np.mean([d for d, _ in known]), rel=1e-6, abs=1e-30)
        if found.largest:
            assert (found.largest, found.key) in [(abs(d), key) for d, key in known]


@given(st.lists(st.tuples(*2 * [st.sampled_from(["a", "b", "c", None])]), min_size=1, max_size=30))
def test_labels_are_told_with_what_took_their_place(pairs: list[tuple[str | None, str | None]]) -> None:
    tally = ColumnTally("c", "string")
    a, b = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    tally.add(a.dictionary_encode(), b.dictionary_encode(), str)
    found = tally.result()
    moved = Counter((str(x or "null"), str(y or "null")) for x, y in pairs if x != y)
    assert found.changed == sum(moved.values())
    assert {(a, b): n for a, b, n in found.labels} == dict(moved)


LIST = st.one_of(st.none(), st.lists(st.sampled_from([0.0, 1.0, 2.0]), max_size=3))


@given(st.lists(st.tuples(LIST, LIST), min_size=1, max_size=20))
def test_a_list_has_changed_if_a_value_or_its_length_has(pairs: list[tuple[Any, Any]]) -> None:
    tally = ColumnTally("c", "list<float>")
    a, b = (pa.array([pair[i] for pair in pairs], pa.list_(pa.float32())) for i in (0, 1))
    tally.add(a, b, str)
    assert tally.result().changed == sum(x != y for x, y in pairs)


def test_tensors_and_records_are_compared_too() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 2, 2), np.float32))
    other = pa.FixedShapeTensorArray.from_numpy_ndarray(
        np.concatenate([np.zeros((2, 2, 2)), np.ones((1, 2, 2))]).astype(np.float32)
    )
    tally = ColumnTally("c", "tensor")
    tally.add(tensors, other, "abc".__getitem__)
    assert (tally.result().changed, tally.result().key) == (1, "c")
    records = ColumnTally("c", "struct")
    records.add(pa.array([{"x": 1}, {"x": 2}]), pa.array([{"x": 1}, {"x": 3}]), str)
    assert records.result().changed == 1


def test_a_tolerance_is_relative() -> None:
    tally = ColumnTally("c", "float", tolerance=1e-3)
    tally.add(pa.array([1.0, 1000.0]), pa.array([1.002, 1000.5]), str)
    assert tally.result().changed == 1
