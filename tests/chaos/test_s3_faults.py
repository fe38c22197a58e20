"""A store that fails at each kind of request, in each way: the run ends well, by the same command at most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchonnx
from batchonnx.errors import StorageError
from batchonnx.storage import s3 as s3_module
from batchonnx.storage import s3_requests
from tests.chaos.bucket import contents, make_input, make_job, require_result
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
WRITES += ("DeleteObjects", "DeleteObject", "AbortMultipartUpload")
READS = ("GetObject", "ListObjectsV2", "ListMultipartUploads")
FAULTS: dict[str, dict[str, Any]] = {
    "503": {"fault": "error"},
    "500": {"fault": "error", "status": 500, "code": "InternalError"},
    "reset before": {"fault": "reset", "at": "before"},
    "reset in the request": {"fault": "reset", "at": "request"},
    "reset in the response": {"fault": "reset", "at": "response"},
    "lost": {"fault": "lost"},
}
QUICK = ("lost", "reset in the response")
"""The others are slow only for the waits between tries."""


@pytest.fixture
def folder(s3: S3Server, proxy: FaultProxy, use_store: UseStore, tmp_path: Path) -> Path:
    use_store(s3.access.via(proxy.url))
    make_input(tmp_path)
    return tmp_path


@pytest.fixture
def wanted(folder: Path) -> dict[str, str]:
    """What an undisturbed run gives."""
    batchonnx.run(make_job(folder, str(folder / "out")))
    return contents(str(folder / "out"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers are waited for half a second, and asked for three times."""
    monkeypatch.setattr(s3_requests, "CONNECT_S", 0.5)
    monkeypatch.setattr(s3_requests, "ANSWER_S", 0.5)
    monkeypatch.setattr(s3_requests, "TRIES", 3)
    s3_module._client.cache_clear()
    yield
    s3_module._client.cache_clear()


def run_until_done(folder: Path, output: str, most: int = 2, is_patient: bool = True) -> list[str]:
    """The same command until it ends well: the errors before. Without patience: once."""
    told: list[str] = []
    while True:
        try:
            batchonnx.run(make_job(folder, output))
        except StorageError as error:
            told.append(str(error))
            if not is_patient:
                return told
            assert len(told) < most, told
        else:
            return told


@pytest.mark.parametrize(
    "fault",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.soak) for name in FAULTS if name not in QUICK),
    ],
)
def test_one_fault_of_each_kind_of_request_costs_nothing(
    folder: Path, s3_folder: str, proxy: FaultProxy, wanted: dict[str, str], fault: str
) -> None:
    """The first of each, all in one run: whatever comes before it has passed."""
    rules = [proxy.fault(**FAULTS[fault], op=f"^{op}$", nth=1) for op in (*WRITES, *READS)]
    fired = [rule.__enter__() for rule in rules]
    assert run_until_done(folder, f"{s3_folder}/out") == []
    proxy.clear()
    assert {rule.op for rule in fired if not rule.fired} <= {"^DeleteObject$"}
    require_result(f"{s3_folder}/out", wanted)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("op", [*WRITES, *READS])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_any_request_is_survived(
    folder: Path, s3_folder: str, proxy: FaultProxy, wanted: dict[str, str], op: str, fault: str
) -> None:
    """The n-th of its kind, and the retry of it, for every n."""
    for number in range(1, 40):
        output = f"{s3_folder}/{number}"
        with proxy.fault(**FAULTS[fault], op=f"^{op}$", nth=(number, number + 1)) as rule:
            run_until_done(folder, output)
        if not rule.fired:
            break
        require_result(output, wanted)


@pytest.mark.soak
@pytest.mark.parametrize("op", [*WRITES, "GetObject"])
def test_a_kind_of_request_that_fails_for_long_ends_the_run_resumable(
    folder: Path, s3_folder: str, proxy: FaultProxy, wanted: dict[str, str], op: str, impatient: None
) -> None:
    output = f"{s3_folder}/out"
    for skipped in (1, 2):
        with proxy.fault("error", op=f"^{op}$", nth=tuple(range(skipped, 1000))) as rule:
            told = run_until_done(folder, output, most=3, is_patient=False)
        assert not rule.fired or all("overloaded" in text and "injected" in text for text in told)
    run_until_done(folder, output)
    require_result(output, wanted)


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param(
            {"fault": "error", "probability": 0.2, "seed": 7}, id="a fifth 503", marks=pytest.mark.soak
        ),
        pytest.param({"fault": "lost", "probability": 0.1, "seed": 8}, id="a tenth lost"),
        pytest.param(
            {"fault": "reset", "at": "response", "probability": 0.1, "seed": 9},
            id="a tenth cut",
            marks=pytest.mark.slow,
        ),
        pytest.param({"fault": "throttle", "rate": 20, "burst": 2}, id="twenty a second"),
    ],
)
def test_a_storm_is_weathered(
    folder: Path, s3_folder: str, proxy: FaultProxy, wanted: dict[str, str], storm: dict[str, Any]
) -> None:
    with proxy.fault(**storm) as rule:
        run_until_done(folder, f"{s3_folder}/out")
    assert rule.fired
    require_result(f"{s3_folder}/out", wanted)


@pytest.mark.parametrize("at", ["before", pytest.param("response", marks=pytest.mark.soak)])
def test_a_request_that_hangs_is_asked_again(
    folder: Path, s3_folder: str, proxy: FaultProxy, wanted: dict[str, str], at: str, impatient: None
) -> None:
    rules = [proxy.fault("hang", at=at, op=f"^{op}$", nth=2) for op in (*WRITES, *READS)]
    for rule in rules:
        rule.__enter__()
    run_until_done(folder, f"{s3_folder}/out", most=3)
    proxy.clear()
    require_result(f"{s3_folder}/out", wanted)


@pytest.mark.parametrize("op", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_token_that_expires_ends_the_run_and_a_new_one_finishes_it(
    s3: S3Server,
    folder: Path,
    s3_folder: str,
    proxy: FaultProxy,
    wanted: dict[str, str],
    use_store: UseStore,
    op: str,
) -> None:
    output = f"{s3_folder}/out"
    with proxy.fault("expired", op=f"^{op}$", nth=2) as rule:
        proxy.add(rule_for_all := type(rule)("expired"))
        rule_for_all._keys = rule._keys  # from then on to every request with that key
        rule_for_all._chosen = lambda: False  # type: ignore[method-assign]
        with pytest.raises(StorageError) as caught:
            batchonnx.run(make_job(folder, output))
        problem = caught.value.problems[0]
        assert (caught.value.exit_code, problem.title) == (3, "the credentials have expired")
        assert problem.facts["request id"] == "injected"
        use_store(s3.next_access.via(proxy.url))
        batchonnx.run(make_job(folder, output))
    proxy.clear()
    require_result(output, wanted)
