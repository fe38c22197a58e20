"""A run that dies before any one of its requests to the store; the same command then ends it well.

What is in the store doesn't tell a run that died before a request from one that died before it had seen
the answer to the request before, so that one pass is both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import batchonnx
from batchonnx.ledger import object_lease
from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import FILES, contents, everything, make_input, make_job, require_result, write
from tests.chaos.dying_s3 import Life
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs; lives of this process that are over count as dead."""
    use_store(s3)
    monkeypatch.setattr(object_lease, "is_dead", lambda record: True)
    make_input(tmp_path)
    return tmp_path


def numbers(life: Life, is_whole: bool) -> list[int]:
    """Those of the requests of a life that change something: all, or from the run's own manifest on.

    And one after the last: dying before a request that only reads is dying before what follows it.
    """
    names = [f"{operation} {key.rpartition('/')[2]}" for operation, key in life.asked]
    first = 0 if is_whole else names.index("put_object manifest.json")
    changes = [i for i, name in enumerate(names) if not name.startswith(("get", "list", "head"))]
    return [*(number + 1 for number in changes if number >= first), len(names) + 1]


def copied(source: str, target: str) -> str:
    """The same result at another place."""
    here, there = ObjectFolder(source), ObjectFolder(target)
    for entry in here.list():
        found = here.get(entry.key)
        assert found is not None
        there.put(entry.key, found[0])
    return target


@pytest.mark.parametrize(
    "has_folders", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one", "folders"]
)
@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_first_run_that_dies_at_any_request_is_finished(
    folder: Path, s3_folder: str, is_whole: bool, has_folders: bool
) -> None:
    """Of its publication, or of all; into one folder, or into folders by value."""
    batchonnx.run(make_job(folder, str(folder / "out"), has_folders=has_folders))
    wanted = contents(str(folder / "out"))
    with Life().lived() as life:
        batchonnx.run(make_job(folder, f"{s3_folder}/whole", has_folders=has_folders))
    for number in numbers(life, is_whole):
        output = f"{s3_folder}/{number}"
        with Life(number).lived():
            batchonnx.run(make_job(folder, output, has_folders=has_folders))
        batchonnx.run(make_job(folder, output, has_folders=has_folders))
        require_result(output, wanted)


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("overwrite", marks=pytest.mark.slow),
        *(pytest.param(how, marks=pytest.mark.soak) for how in ("incremental", "fresh")),
    ],
)
def test_a_replacement_that_dies_at_any_request_is_finished(
    folder: Path, s3_folder: str, how: str, is_whole: bool
) -> None:
    model = "other.onnx" if how == "overwrite" else "model.onnx"
    options = {} if how == "overwrite" else {how: True}
    batchonnx.run(make_job(folder, f"{s3_folder}/former"))
    if how == "incremental":
        (folder / "in" / "1.parquet").unlink()
        write(folder, FILES)
    whole = copied(f"{s3_folder}/former", f"{s3_folder}/whole")
    with Life().lived() as life:
        batchonnx.run(make_job(folder, whole, model), **options)
    wanted = contents(whole)
    for number in numbers(life, is_whole):
        output = copied(f"{s3_folder}/former", f"{s3_folder}/{number}")
        with Life(number).lived():
            batchonnx.run(make_job(folder, output, model), **options)
        batchonnx.run(make_job(folder, output, model), **options)
        require_result(output, wanted)


@pytest.mark.soak
def test_a_death_during_the_next_run_of_another_job_is_swept_up(folder: Path, s3_folder: str) -> None:
    """A run that died is discarded by another one with --fresh, which dies at any request of that."""
    batchonnx.run(make_job(folder, str(folder / "out"), "other.onnx"))
    wanted = contents(str(folder / "out"))
    for number in range(16, 30):
        output = f"{s3_folder}/{number}"
        with Life(35).lived() as cut:
            batchonnx.run(make_job(folder, output))
        assert cut.is_over
        with Life(number).lived():
            batchonnx.run(make_job(folder, output, "other.onnx"), fresh=True)
        batchonnx.run(make_job(folder, output, "other.onnx"), fresh=True)
        require_result(output, wanted)


@pytest.mark.soak
def test_clean_leaves_nothing_of_a_run_that_died_and_is_not_wanted(folder: Path, s3_folder: str) -> None:
    """Of a result that was never published, only the run that can go on stays."""
    for number in range(1, 40, 3):
        output = f"{s3_folder}/{number}"
        with Life(number).lived():
            batchonnx.run(make_job(folder, output))
        batchonnx.clean(output)
        once = everything(output)
        assert batchonnx.clean(output) == []
        assert everything(output) == once
        batchonnx.run(make_job(folder, output))
        assert list(ObjectFolder(output).uploads()) == []
