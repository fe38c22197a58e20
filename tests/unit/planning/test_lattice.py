"""The shapes in which texts reach the model: few, none too small, and no row in two batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchonnx.planning.lattice import POINTS, cut_batches, lengths, padded, rows_of, windows

LONGEST = st.integers(1, 8192)
BATCH = st.integers(1, 512)
FIXED = st.none() | st.integers(1, 40)


@given(LONGEST, st.data())
def test_every_length_has_a_point_that_is_little_longer(longest, data):
    points = lengths(longest)
    assert len(points) <= POINTS
    assert list(points) == sorted(set(points))
    assert points[-1] == longest
    tokens = data.draw(st.integers(1, longest))
    assert tokens <= padded(tokens, points) <= max(4, tokens + 1, tokens * 1.3)


@given(st.lists(st.integers(1, 512), max_size=300), BATCH, FIXED)
def test_padded_batches_hold_each_row_once_in_at_most_32_shapes(tokens, batch_rows, fixed):
    tokens = sorted(tokens, reverse=True)
    points = lengths(512)
    first, shapes = 0, set()
    for stop, fed in cut_batches(tokens, points, batch_rows, fixed):
        length = padded(tokens[first], points)
        assert 0 < stop - first <= fed
        assert fed == stop - first or stop == len(tokens)
        assert fed == (fixed or rows_of(length, batch_rows))
        shapes.add((fed, length))
        first = stop
    assert first == len(tokens)
    assert len(shapes) <= POINTS


@given(st.lists(st.integers(1, 30), max_size=300), BATCH, FIXED)
def test_without_padding_a_batch_has_one_length(tokens, batch_rows, fixed):
    tokens = sorted(tokens, reverse=True)
    first = 0
    for stop, fed in cut_batches(tokens, (), batch_rows, fixed):
        rows = stop - first
        assert len(set(tokens[first:stop])) == 1
        assert rows <= (fixed or rows_of(tokens[first], batch_rows))
        assert fed == fixed if fixed else rows == fed == 1 << rows.bit_length() - 1
        first = stop
    assert first == len(tokens)


@given(st.integers(0, 20_000), st.integers(1, 5_000))
def test_windows_hold_each_row_once_and_are_about_equal(rows, most):
    found = windows(rows, most)
    assert [row for first, stop in found for row in range(first, stop)] == list(range(rows))
    sizes = {stop - first for first, stop in found}
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)
