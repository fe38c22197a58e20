"""One writer, on a disk and in a store: who holds an output, and when a lease may be taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from batchonnx.errors import OutputBusyError
from batchonnx.ledger import lease, object_lease
from batchonnx.ledger.lease import hold_lease
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.object_lease import LEASE, ObjectLease
from batchonnx.ledger.process import this_process
from tests.stores.s3server import S3Server

OnLost = Callable[[], None]
ELSEWHERE = {"machine": "far", "host": "far", "pid": 42}


class Place(Protocol):
    """An output, and its lease. beat_s, watch_s: how often it beats, how long it is watched."""

    beat_s: float
    watch_s: float

    def hold(self, on_lost: OnLost) -> AbstractContextManager[object]: ...

    def read(self) -> bytes | None: ...

    def write(self, record: bytes) -> None: ...


@dataclass
class OnDisk:
    output: Path
    beat_s: float = 0.02
    watch_s: float = 0.16

    def hold(self, on_lost: OnLost) -> AbstractContextManager[object]:
        return hold_lease(self.output, on_lost)

    @property
    def _file(self) -> Path:
        return self.output.with_name(".out.batchonnx-lease")

    def read(self) -> bytes | None:
        return self._file.read_bytes() if self._file.exists() else None

    def write(self, record: bytes) -> None:
        self._file.write_bytes(record)


@dataclass
class InStore:
    folder: ObjectFolder
    beat_s: float = 0.03
    watch_s: float = 0.6

    def hold(self, on_lost: OnLost) -> AbstractContextManager[object]:
        return ObjectLease(self.folder, on_lost)

    def read(self) -> bytes | None:
        found = self.folder.get(LEASE)
        return found[0] if found is not None else None

    def write(self, record: bytes) -> None:
        self.folder.put(LEASE, record)


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An output; leases of a quick beat."""
    if request.param == "disk":
        on_disk = OnDisk(tmp_path / "out")
        monkeypatch.setattr(lease, "BEAT_S", on_disk.beat_s)
        monkeypatch.setattr(lease, "WATCH_S", on_disk.watch_s)
        yield on_disk
        return
    store: S3Server = request.getfixturevalue("s3")
    request.getfixturevalue("use_store")(store)
    in_store = InStore(ObjectFolder(f"{request.getfixturevalue('s3_folder')}/out"))
    times = {"BEAT_S": in_store.beat_s, "WATCH_S": in_store.watch_s, "SURE_S": 0.09, "LOOK_S": 0.03}
    for name, value in times.items():
        monkeypatch.setattr(object_lease, name, value)
    yield in_store


def never() -> None:
    raise AssertionError("the lease was lost")


def record(place: Place) -> dict[str, object]:
    """Empty where there is none."""
    told = json.loads(place.read() or b"{}")
    assert isinstance(told, dict)
    return told


def leave_record(place: Place, beat: int = 7, **changed: object) -> None:
    """What a holder left, or one elsewhere keeps writing."""
    told = {"holder": "another", "token": 5, **this_process(), "since": "noon", "beat": beat}
    place.write(json.dumps(told | changed).encode())


@contextmanager
def beating_elsewhere(place: Place) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        count = 7
        while not ended.wait(place.beat_s):
            count += 1
            leave_record(place, count, **ELSEWHERE)

    leave_record(place, **ELSEWHERE)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_it_is_free_when_its_block_ends_and_may_be_held_again(place: Place) -> None:
    for _ in range(3):
        with place.hold(never):
            assert record(place)["pid"] == os.getpid()
        assert record(place).get("holder") is None


def test_it_is_free_when_its_block_raises(place: Place) -> None:
    with pytest.raises(ValueError, match="of the block"), place.hold(never):
        raise ValueError("of the block")
    assert record(place).get("holder") is None


def test_a_second_holder_is_told_who_has_it(place: Place) -> None:
    with place.hold(never):
        with pytest.raises(OutputBusyError) as caught, place.hold(never):
            pytest.fail("held twice")
        assert f"process {os.getpid()} on " in caught.value.problems[0].facts["held by"]
        assert record(place)["pid"] == os.getpid(), "the first one's is untouched"


def test_it_beats(place: Place) -> None:
    end = time.monotonic() + 10
    with place.hold(never):
        while int(str(record(place)["beat"])) < 3:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_a_dead_holder_of_this_machine_is_followed_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without watching it, which would take for ever."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave_record(place, pid=gone.pid)
    for module in (lease, object_lease):
        monkeypatch.setattr(module, "WATCH_S", 1e9)
    with place.hold(never):
        assert record(place)["pid"] == os.getpid()


def test_a_dead_holder_elsewhere_is_followed_once_its_count_stands_still(place: Place) -> None:
    leave_record(place, **ELSEWHERE)
    start = time.monotonic()
    with place.hold(never):
        assert time.monotonic() - start >= place.watch_s
        assert record(place)["pid"] == os.getpid()


def test_a_living_holder_elsewhere_is_left_alone(place: Place) -> None:
    """On a disk, its lock isn't seen here; its beat is."""
    with (
        beating_elsewhere(place),
        pytest.raises(OutputBusyError) as caught,
        place.hold(never),
    ):
        pytest.fail("held twice")
    assert caught.value.problems[0].facts["held by"] == "process 42 on far, since noon"


def test_who_was_taken_over_is_told_and_leaves_the_new_record(place: Place) -> None:
    """A holder that was asleep for long."""
    lost = threading.Event()
    with place.hold(lost.set):
        leave_record(place, **ELSEWHERE)
        assert lost.wait(10)
    assert record(place)["host"] == "far"


@pytest.mark.parametrize("text", ["", "{", "[]", "\0" * 512])
def test_half_a_record_is_none(place: Place, text: str) -> None:
    place.write(text.encode())
    with place.hold(never):
        assert record(place)["pid"] == os.getpid()


def test_threads_at_once_hold_it_one_after_another(place: Place) -> None:
    held, most, ended = 0, 0, 0
    count = threading.Lock()

    def try_often() -> None:
        nonlocal held, most, ended
        for _ in range(10):
            try:
                with place.hold(never):
                    with count:
                        held += 1
                        most = max(most, held)
                    with count:
                        held -= 1
            except OutputBusyError:
                pass
            with count:
                ended += 1

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, ended) == (1, 40)
