"""A writer that froze, at any of its requests, and wakes when another one has taken over and is done.

In one process: the sleeper's client of the store holds its requests back, all of its threads, until the
other run has ended. What the frozen request does, it does afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import batchonnx
from batchonnx.errors import BatchonnxError
from batchonnx.ledger import object_lease
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.storage.s3_requests import Requests
from tests.chaos.bucket import FILE_ROWS, FILES, contents, make_input, make_job, require_tidy
from tests.chaos.dying_s3 import Life
from tests.chaos.test_die_at_each_request import copied, numbers
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

pytestmark = [pytest.mark.timeout(900), pytest.mark.soak]


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs; whoever looks takes the holder for dead, as if it had been silent for long."""
    use_store(s3)
    monkeypatch.setattr(object_lease, "is_dead", lambda record: True)
    monkeypatch.setattr(object_lease, "SURE_S", -1)
    make_input(tmp_path)
    return tmp_path


@contextmanager
def frozen_at(number: int, meanwhile: Callable[[], None]) -> Iterator[None]:
    """The client that asks first freezes before its request of that number, while something else is done.

    Which another client does: the environment differs.
    """
    call = Requests.call
    sleepers: list[Requests] = []
    asked, asleep, awake = 0, threading.Event(), threading.Event()
    lock = threading.Lock()

    def ask(client: Requests, operation: str, **arguments: Any) -> Any:
        nonlocal asked
        with lock:
            sleepers.append(client)
            is_sleeper = client is sleepers[0]
            asked += is_sleeper
            falls_asleep = is_sleeper and asked == number
        if falls_asleep:
            asleep.set()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_SDK_UA_APP_ID", "the-other")
                try:
                    meanwhile()
                finally:
                    awake.set()
        elif is_sleeper and asleep.is_set():
            awake.wait(60)
        return call(client, operation, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Requests, "call", ask)
        yield


@pytest.mark.parametrize(
    ("sleeper", "other"),
    [
        ({}, {}),
        ({"model": "other.onnx"}, {"model": "other.onnx"}),
        ({"model": "other.onnx"}, {"model": "other.onnx", "fresh": True}),
        ({"fresh": True}, {"model": "other.onnx", "fresh": True}),
    ],
)
def test_it_changes_nothing(
    folder: Path, s3_folder: str, sleeper: dict[str, Any], other: dict[str, Any]
) -> None:
    def run(output: str, model: str = "model.onnx", **options: bool) -> None:
        batchonnx.run(make_job(folder, output, model), **options)

    run(former := f"{s3_folder}/former")
    run(copied(former, f"{s3_folder}/other"), **other)
    wanted = contents(f"{s3_folder}/other")
    whole = copied(former, f"{s3_folder}/sleeper")
    with Life().lived() as life:
        run(whole, **sleeper)
    first = life.asked.index(("put_object", ObjectFolder(whole).key(object_lease.LEASE))) + 2
    wrong = []
    for number in numbers(life, True)[:-1]:
        operation, key = life.asked[number - 1]
        if number < first:
            continue
        output = copied(former, f"{s3_folder}/{number}")
        end = "nothing told"
        with frozen_at(number, lambda output=output: run(output, **other)):  # type: ignore[misc]
            try:
                run(output, **sleeper)
            except BatchonnxError as error:
                end = str(error)
        try:
            assert batchonnx.verify(output).predicted == FILES * FILE_ROWS
            assert contents(output) == wanted
            batchonnx.clean(output)
            require_tidy(output)
            assert "another run has taken this output over" in end or operation != "upload_part"
        except Exception as error:
            wrong.append(f"{number} {operation} {key.rpartition('/')[2]}: {end}\n{error}")
    assert not wrong, "\n\n".join(wrong)
