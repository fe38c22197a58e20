"""One writer: who holds an output, and when a lease may be taken over."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batchonnx.errors import OutputBusyError, StorageError
from batchonnx.ledger import lease
from batchonnx.ledger.lease import hold_lease
from batchonnx.ledger.process import this_machine

BEAT_S = 0.02


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output; leases of a quick beat."""
    monkeypatch.setattr(lease, "BEAT_S", BEAT_S)
    monkeypatch.setattr(lease, "WATCH_S", 8 * BEAT_S)
    return tmp_path / "out"


def lease_file(output: Path) -> Path:
    return output.with_name(".out.batchonnx-lease")


def never() -> None:
    raise AssertionError("the lease was lost")


def record(output: Path) -> dict[str, object]:
    found = json.loads(lease_file(output).read_text())
    assert isinstance(found, dict)
    return found


def leave_record(output: Path, machine: str, beat: int = 7) -> None:
    """What a holder that isn't there any more left, or one elsewhere keeps writing."""
    told = {"holder": "another", "machine": machine, "host": "far", "pid": 42, "since": "noon", "beat": beat}
    lease_file(output).write_text(json.dumps(told))


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_is_gone_when_its_block_ends_and_may_be_held_again(output: Path) -> None:
    for _ in range(3):
        with hold_lease(output, never):
            assert record(output)["pid"] == os.getpid()
        assert list(output.parent.iterdir()) == []


def test_it_is_gone_when_its_block_raises(output: Path) -> None:
    with pytest.raises(ValueError, match="of the block"), hold_lease(output, never):
        raise ValueError("of the block")
    assert list(output.parent.iterdir()) == []


def test_a_second_holder_is_told_who_has_it(output: Path) -> None:
    with hold_lease(output, never):
        with pytest.raises(OutputBusyError) as caught, hold_lease(output, never):
            pytest.fail("held twice")
        assert f"process {os.getpid()} on " in caught.value.problems[0].facts["held by"]
        assert record(output)["pid"] == os.getpid(), "the first one's is untouched"


def test_it_beats(output: Path) -> None:
    with hold_lease(output, never):
        wait_until(lambda: int(str(record(output)["beat"])) >= 3)


def test_a_dead_holder_of_this_machine_is_followed_at_once(output: Path) -> None:
    """The kernel has released its lock; its record says no more."""
    leave_record(output, this_machine())
    start = time.monotonic()
    with hold_lease(output, never):
        assert time.monotonic() - start < 4 * BEAT_S


def test_a_dead_holder_elsewhere_is_followed_once_its_count_stands_still(output: Path) -> None:
    leave_record(output, "far")
    start = time.monotonic()
    with hold_lease(output, never):
        assert time.monotonic() - start >= 8 * BEAT_S
        assert record(output)["pid"] == os.getpid()


def test_a_living_holder_elsewhere_is_left_alone(output: Path) -> None:
    """Its lock isn't seen here, its beat is."""
    leave_record(output, "far")
    ended = threading.Event()

    def beat() -> None:
        count = 7
        while not ended.wait(BEAT_S):
            count += 1
            leave_record(output, "far", count)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(OutputBusyError) as caught, hold_lease(output, never):
            pytest.fail("held twice")
    finally:
        ended.set()
        beating.join()
    assert caught.value.problems[0].facts["held by"] == "process 42 on far, since noon"


def test_who_was_taken_over_is_told_and_leaves_the_new_record(output: Path) -> None:
    """A holder that was asleep for long, on a machine whose locks aren't seen elsewhere."""
    lost = threading.Event()
    with hold_lease(output, lost.set):
        leave_record(output, "far")
        assert lost.wait(10)
    assert record(output)["host"] == "far"


@pytest.mark.parametrize("text", ["", "{", "[]", "\0" * 512])
def test_half_a_record_is_none(output: Path, text: str) -> None:
    lease_file(output).write_text(text)
    with hold_lease(output, never):
        assert record(output)["pid"] == os.getpid()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), hold_lease(tmp_path / "file" / "out", never):
        pytest.fail("held")


def test_threads_at_once_hold_it_one_after_another(output: Path) -> None:
    held, most, refused = 0, 0, 0
    count = threading.Lock()

    def try_often() -> None:
        nonlocal held, most, refused
        for _ in range(30):
            try:
                with hold_lease(output, never):
                    with count:
                        held += 1
                        most = max(most, held)
                    with count:
                        held -= 1
            except OutputBusyError:
                with count:
                    refused += 1

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused > 0
