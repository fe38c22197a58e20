"""Input and output in a store that fails, or is killed, while it is read: the undisturbed result."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchonnx
from batchonnx.errors import InputError, StorageError
from batchonnx.formats import parquet_footers
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.storage import s3 as s3_module
from batchonnx.storage import s3_requests
from tests.chaos.bucket import FILES, contents, make_input, make_job, put_input, require_result, require_tidy
from tests.chaos.dying_s3 import Life
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS = 60_000
"""Of a file: one that isn't read whole with its footer."""

READS = ("GetObject", "HeadObject", "ListObjectsV2")
FAULTS: dict[str, dict[str, Any]] = {
    "503": {"fault": "error"},
    "500": {"fault": "error", "status": 500, "code": "InternalError"},
    "reset before": {"fault": "reset", "at": "before"},
    "reset in the response": {"fault": "reset", "at": "response"},
    "truncated": {"fault": "truncated"},
    "lost": {"fault": "lost"},
    "hangs before": {"fault": "hang", "at": "before"},
    "hangs in the response": {"fault": "hang", "at": "response"},
}
QUICK = ("reset in the response", "truncated")
SERVER_DEATHS = 10


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_store(s3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_input(tmp_path, rows=ROWS)
    return tmp_path


@pytest.fixture
def source(folder: Path, s3_folder: str) -> str:
    return put_input(folder, f"{s3_folder}/source")


@pytest.fixture
def wanted(folder: Path, source: str) -> dict[str, str]:
    """What an undisturbed run gives; no footer is known afterwards."""
    batchonnx.run(make_job(folder, str(folder / "out"), source=source))
    return contents(str(folder / "out"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers are waited for a second."""
    monkeypatch.setattr(s3_requests, "ANSWER_S", 1)
    s3_module._client.cache_clear()
    yield
    s3_module._client.cache_clear()


def forget_footers(folder: Path) -> None:
    """As if each run were the first that sees its input."""
    parquet_footers._kept.clear()
    for kept in (folder / "cache").rglob("*"):
        if kept.is_file():
            kept.unlink()


def run_until_done(folder: Path, output: str, source: str, most: int = 2) -> int:
    """The same command until it ends well: how often it was given."""
    for number in range(1, most + 1):
        forget_footers(folder)
        try:
            batchonnx.run(make_job(folder, output, source=source))
        except (StorageError, InputError):
            if number == most:
                raise
        else:
            return number
    raise AssertionError


def require_clean_result(output: str, wanted: dict[str, str]) -> None:
    batchonnx.clean(output)
    require_result(output, wanted, FILES * ROWS)
    require_tidy(output)


@pytest.mark.parametrize(
    "fault", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_every_fourth_read_fails_and_the_run_ends_well(
    s3: S3Server,
    proxy: FaultProxy,
    use_store: UseStore,
    folder: Path,
    source: str,
    wanted: dict[str, str],
    s3_folder: str,
    impatient: None,
    fault: str,
) -> None:
    use_store(s3.access.via(proxy.url))
    output = f"{s3_folder}/out"
    with proxy.fault(**FAULTS[fault], op="|".join(f"^{op}$" for op in READS), every=4) as rule:
        assert run_until_done(folder, output, source) == 1
    assert rule.fired > 3
    use_store(s3)
    require_clean_result(output, wanted)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("op", READS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_any_read_is_survived(
    s3: S3Server,
    proxy: FaultProxy,
    use_store: UseStore,
    folder: Path,
    source: str,
    wanted: dict[str, str],
    s3_folder: str,
    impatient: None,
    op: str,
    fault: str,
) -> None:
    """The n-th of its kind, and the retry of it, for every n."""
    for number in range(1, 60):
        use_store(s3.access.via(proxy.url))
        output = f"{s3_folder}/{number}"
        with proxy.fault(**FAULTS[fault], op=f"^{op}$", nth=(number, number + 1)) as rule:
            run_until_done(folder, output, source)
        if not rule.fired:
            break
        use_store(s3)
        require_clean_result(output, wanted)


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param({"fault": "error", "probability": 0.2, "seed": 7}, id="a fifth 503"),
        pytest.param({"fault": "throttle", "rate": 30, "burst": 2}, id="thirty a second"),
        pytest.param({"fault": "reset", "at": "response", "probability": 0.2, "seed": 9}, id="a fifth cut"),
    ],
)
@pytest.mark.slow
def test_a_storm_over_reads_and_writes_is_weathered(
    s3: S3Server,
    proxy: FaultProxy,
    use_store: UseStore,
    folder: Path,
    source: str,
    wanted: dict[str, str],
    s3_folder: str,
    storm: dict[str, Any],
) -> None:
    use_store(s3.access.via(proxy.url))
    output = f"{s3_folder}/out"
    with proxy.fault(**storm) as rule:
        run_until_done(folder, output, source)
    assert rule.fired
    use_store(s3)
    require_clean_result(output, wanted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_store_that_is_killed_while_it_is_read_and_written_costs_no_row(
    s3: S3Server, folder: Path, source: str, wanted: dict[str, str], s3_folder: str
) -> None:
    """Ten deaths, each at a random request; it comes back."""
    forget_footers(folder)
    with Life().lived() as whole:
        batchonnx.run(make_job(folder, f"{s3_folder}/whole", source=source))
    draw, deaths, again = random.Random(13), 0, 0
    while deaths < SERVER_DEATHS:
        output, moment = f"{s3_folder}/{deaths}", draw.randint(1, len(whole.asked))
        told: list[int] = []
        run = threading.Thread(target=lambda: told.append(run_until_done(folder, output, source)))  # noqa: B023
        with Life(wake_at=moment).lived() as life:
            run.start()
            while not life.woken.wait(0.05) and run.is_alive():
                pass
            s3.kill9()
            s3.restart()
            run.join()
        assert told, "the second run has to end well"
        deaths, again = deaths + 1, again + told[0] - 1
        require_clean_result(output, wanted)
        ObjectFolder(output).delete_below("")
    print(f"{again} of {deaths} runs had to be started again")
