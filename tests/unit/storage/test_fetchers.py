"""What was asked for first is fetched first, and no more at once than there is room for."""

from __future__ import annotations

import threading

import pytest

from batchonnx.storage import fetchers
from batchonnx.storage.fetchers import fetch_soon

LONGEST_S = 10


def test_what_was_asked_for_first_is_on_its_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetchers, "FLYING_BYTES", 100)
    begun: list[int] = []
    lands = threading.Event()

    def fetch(number: int) -> int:
        begun.append(number)
        assert lands.wait(LONGEST_S)
        return number

    first = [fetch_soon(lambda n=number: fetch(n), 50) for number in range(2)]
    while len(begun) < 2:
        pass
    rest = [fetch_soon(lambda n=number: fetch(n), 50) for number in range(2, 8)]
    assert sorted(begun) == [0, 1]  # there is no room for a third
    lands.set()
    assert [future.result(LONGEST_S) for future in [*first, *rest]] == list(range(8))


def test_one_that_is_larger_than_all_the_room_flies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetchers, "FLYING_BYTES", 100)
    assert [
        future.result(LONGEST_S) for future in [fetch_soon(lambda: 1, 500), fetch_soon(lambda: 2, 500)]
    ] == [1, 2]


def test_an_error_goes_to_who_asked_and_makes_room() -> None:
    def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fetch_soon(fail, fetchers.FLYING_BYTES).result(LONGEST_S)
    assert fetch_soon(lambda: 3, fetchers.FLYING_BYTES).result(LONGEST_S) == 3
