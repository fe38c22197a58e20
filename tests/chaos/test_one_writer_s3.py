"""Runs of one output in a bucket that are started at once, and one that is frozen past its lease."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

import batchonnx
from batchonnx.errors import BatchonnxError, OutputBusyError
from batchonnx.ledger import object_lease, process
from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import contents, everything, make_input, make_job, require_result
from tests.chaos.races import processes, race
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

__all__ = ["processes"]
RACES, FREEZES = 50, 10


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path) -> Path:
    use_store(s3)
    make_input(tmp_path)
    return tmp_path


def nap(folder: Path, output: str, env: dict[str, str], told: Any) -> None:
    """As on another machine, with a quick lease: the job, to be frozen from outside."""
    os.environ.update(env)
    object_lease.BEAT_S, object_lease.SURE_S = 0.1, 0.3
    process.this_machine = lambda: "far"
    try:
        batchonnx.run(make_job(folder, output))
        told.put(("done", ""))
    except BatchonnxError as error:
        told.put((type(error).__name__, str(error)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_two_runs_started_at_once_one_writes(
    s3: S3Server, folder: Path, s3_folder: str, processes: ForkServerContext
) -> None:
    batchonnx.run(make_job(folder, str(folder / "out")))
    reference = contents(str(folder / "out"))
    ends: Counter[tuple[str, ...]] = Counter()
    output = ""
    for number in range(RACES):
        # Without and with a former result, which has to be replaced.
        options = {"fresh": True} if number % 2 else {}
        output = output if options else f"{s3_folder}/{number}"
        ends[race(processes, make_job, (folder, output), options, s3.env())] += 1
        require_result(output, reference)
    print(dict(ends))
    assert ends["refused", "scored"] >= RACES / 2, "the runs have to meet"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_writer_that_was_frozen_past_its_lease_and_wakes_changes_nothing(
    s3: S3Server,
    folder: Path,
    s3_folder: str,
    processes: ForkServerContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen whole, at moments spread over its run; then the other takes over by watching its count."""
    monkeypatch.setattr(object_lease, "WATCH_S", 1.0)
    monkeypatch.setattr(object_lease, "LOOK_S", 0.1)
    batchonnx.run(make_job(folder, str(folder / "out")))
    reference = contents(str(folder / "out"))
    ends: Counter[str] = Counter()
    for number in range(FREEZES):
        output = f"{s3_folder}/{number}"
        told = processes.Queue()
        sleeper = processes.Process(target=nap, args=(folder, output, s3.env(), told))
        sleeper.start()
        assert sleeper.pid is not None
        wait_for_lease(output)
        time.sleep(0.03 * number)
        try:
            send(sleeper.pid, signal.SIGSTOP)
            take_over(folder, output)
            before = everything(output)
            send(sleeper.pid, signal.SIGCONT)
            end, error = told.get(timeout=100)
        except BaseException:
            sleeper.kill()
            raise
        sleeper.join()
        ends[end] += 1
        if end != "done":
            assert end == "OutputBusyError", error
            assert f"process {os.getpid()} on " in error
        after = everything(output)
        assert {name: etag for name, etag in after.items() if name in before} == before
        batchonnx.clean(output)
        assert everything(output) == before
        require_result(output, reference)
    print(dict(ends))
    assert ends["OutputBusyError"] >= 3, "it has to be frozen while it works"


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process, unless it has ended already: it was faster."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def take_over(folder: Path, output: str) -> None:
    """Run the job as soon as the lease is silent: a beat may have been on its way when its holder froze."""
    while True:
        try:
            batchonnx.run(make_job(folder, output))
        except OutputBusyError:
            continue
        return


def wait_for_lease(output: str) -> None:
    """Until somebody holds it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = ObjectFolder(output).get(object_lease.LEASE)
        if found is not None and json.loads(found[0])["holder"]:
            return
        time.sleep(0.005)
    pytest.fail("nobody took the lease")
