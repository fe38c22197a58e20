"""Work that runs ahead: order, bounds, errors and endings."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.scoring.channel import run_ahead


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@given(st.lists(st.integers(0, 20)), st.integers(0, 30))
def test_items_come_in_order_whatever_their_sizes(items: list[int], budget: int) -> None:
    assert list(run_ahead(iter(items), budget, lambda item: item, "t")) == items


def test_no_more_than_the_budget_waits_in_between() -> None:
    made: list[int] = []
    second = threading.Event()

    def make() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            if len(made) >= 4:
                second.set()
            yield item

    ahead = run_ahead(make(), 2, lambda _: 1, "bounded")
    assert next(ahead) == 0
    assert second.wait(10)
    # One is in the reader's hands, two wait, one is about to.
    assert len(made) <= 5
    assert list(ahead) == list(range(1, 100))


def test_an_item_larger_than_the_budget_still_passes() -> None:
    assert list(run_ahead(iter([10, 10]), 1, lambda item: item, "t")) == [10, 10]


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    ahead = run_ahead(make(), 10, lambda _: 1, "t")
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="two"):
        next(ahead)


def test_a_reader_that_leaves_ends_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = run_ahead(make(), 3, lambda _: 1, "endless")
    next(ahead)
    assert "endless" in names()
    ahead.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert "endless" not in names()


def test_a_generator_that_is_forgotten_in_its_own_thread_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector may forget it, after an error."""
    trouble: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", trouble.append)
    kept: list[Iterator[int]] = []
    is_kept = threading.Event()

    def make() -> Iterator[int]:
        yield 0
        is_kept.wait(10)
        kept.clear()
        while True:
            yield 1

    kept.append(run_ahead(make(), 3, lambda _: 1, "forgotten"))
    assert next(kept[0]) == 0
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "forgotten")
    is_kept.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not trouble
