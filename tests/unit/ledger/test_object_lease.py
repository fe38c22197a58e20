"""A lease in a store: what it has beyond one on a disk; see `test_leases`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from batchonnx.errors import Interrupted, OutputBusyError
from batchonnx.ledger import object_lease, process
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.object_lease import LEASE, ObjectLease
from batchonnx.ledger.process import this_process
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

BEAT_S = 0.03


@pytest.fixture
def output(
    s3: S3Server, s3_folder: str, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> ObjectFolder:
    """An output; leases of a quick beat."""
    use_store(s3)
    for name, value in {"BEAT_S": 1, "WATCH_S": 20, "SURE_S": 3, "LOOK_S": 1}.items():
        monkeypatch.setattr(object_lease, name, value * BEAT_S)
    return ObjectFolder(f"{s3_folder}/out")


def never() -> None:
    raise AssertionError("the lease was lost")


def record(output: ObjectFolder) -> dict[str, object]:
    found = output.get(LEASE)
    assert found is not None
    told = json.loads(found[0])
    assert isinstance(told, dict)
    return told


def leave_record(output: ObjectFolder, beat: int = 7, **changed: object) -> None:
    """What a holder left, or one elsewhere keeps writing."""
    told = {"holder": "another", "token": 5, **this_process(), "since": "noon", "beat": beat}
    output.put(LEASE, json.dumps(told | changed).encode())


ELSEWHERE = {"machine": "far", "host": "far", "pid": 42}


def test_its_token_grows_with_each_holder(output: ObjectFolder) -> None:
    for token in (1, 2, 3):
        with ObjectLease(output, never) as lease:
            assert record(output)["pid"] == os.getpid()
            assert (lease.token, record(output)["token"]) == (token, token)
        assert record(output)["holder"] is None


def test_a_process_that_has_the_number_of_a_dead_holder_is_not_taken_for_it(output: ObjectFolder) -> None:
    leave_record(output, born="1")
    with ObjectLease(output, never) as lease:
        assert lease.token == 6


def test_a_holder_of_this_machine_that_is_silent_lives(output: ObjectFolder) -> None:
    """Stopped, or without the store for a while; it needs no watching."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave_record(output, pid=other.pid, born=process._born(other.pid))
    with pytest.raises(OutputBusyError), ObjectLease(output, never):
        pytest.fail("held twice")
    other.kill()
    other.wait()
    with ObjectLease(output, never) as lease:
        assert lease.token == 6


def test_a_lease_that_this_process_could_not_give_back_is_its_own_again(output: ObjectFolder) -> None:
    leave_record(output)
    with ObjectLease(output, never) as lease:
        assert lease.token == 6


def test_who_was_taken_over_is_told_and_leaves_the_new_record(output: ObjectFolder) -> None:
    lost = threading.Event()
    with ObjectLease(output, lost.set) as lease:
        leave_record(output, **ELSEWHERE)
        assert lost.wait(10)
        with pytest.raises(OutputBusyError) as caught:
            lease.prove()
        assert caught.value.problems[0].facts["taken by"] == "process 42 on far, since noon"
    assert record(output)["host"] == "far"


def test_a_run_that_was_interrupted_by_the_loss_ends_with_who_took_it(output: ObjectFolder) -> None:
    with pytest.raises(OutputBusyError, match="process 42 on far"), ObjectLease(output, lambda: None):
        leave_record(output, **ELSEWHERE)
        raise Interrupted
    assert record(output)["host"] == "far"


def test_whoever_has_not_beaten_for_long_asks_the_store(
    output: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_lease, "BEAT_S", 60)
    with ObjectLease(output, never) as lease:
        leave_record(output, **ELSEWHERE)
        monkeypatch.setattr(object_lease, "SURE_S", 60)
        lease.confirm()
        monkeypatch.setattr(object_lease, "SURE_S", 0)
        with pytest.raises(OutputBusyError):
            lease.confirm()


@pytest.mark.parametrize("text", ["", "{", "[]", "\0" * 512])
def test_half_a_record_has_no_token(output: ObjectFolder, text: str) -> None:
    output.put(LEASE, text.encode())
    with ObjectLease(output, never) as lease:
        assert (record(output)["pid"], lease.token) == (os.getpid(), 1)


def test_threads_at_once_have_tokens_that_grow(output: ObjectFolder) -> None:
    held, most, refused = 0, 0, 0
    tokens: list[int] = []
    count = threading.Lock()

    def try_often() -> None:
        nonlocal held, most, refused
        for _ in range(10):
            try:
                with ObjectLease(output, never) as lease:
                    with count:
                        held += 1
                        most = max(most, held)
                        tokens.append(lease.token)
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
    assert tokens == sorted(set(tokens))
    assert len(tokens) + refused == 40
