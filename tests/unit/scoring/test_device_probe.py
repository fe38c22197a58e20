"""Which batch size is taken on a device: within 5% of the best, and as small as that allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.scoring.device_probe import knee, search


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ({8: 100.0, 16: 200.0, 32: 390.0, 64: 400.0, 128: 395.0}, 32),
        ({8: 50.0, 16: 100.0, 32: 200.0}, 32),
        ({8: 10.0}, 8),
    ],
)
def test_the_smallest_size_about_as_fast_as_the_best(rates: dict[int, float], size: int) -> None:
    assert knee(rates) == size


@given(call_s=st.floats(1e-5, 1e-2), row_s=st.floats(1e-7, 1e-3), largest=st.sampled_from([1, 4, 64, 16384]))
def test_a_search_that_ends_early_is_near_the_best_of_all_sizes(
    call_s: float, row_s: float, largest: int
) -> None:
    def rate(size: int) -> float:
        return size / (call_s + size * row_s)

    found = knee(dict(search(rate, largest)))
    assert rate(found) >= 0.95 * max(map(rate, range(1, largest + 1, max(1, largest // 64))))


def test_the_search_ends_where_memory_does() -> None:
    tried = dict(search(lambda size: float(size) if size <= 64 else None, 16384))
    assert tried == {8: 8.0, 16: 16.0, 32: 32.0, 64: 64.0}
