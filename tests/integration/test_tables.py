"""Results that are added to Delta and Iceberg tables, on a disk and in a bucket: once, and as a whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.driver.table import TableStep
from batchonnx.errors import ContractError, GateError
from batchonnx.job.spec import JobFile
from batchonnx.report.plan_view import format_plan, plan_as_dict
from batchonnx.report.summary import format_summary
from batchonnx.tables.table import NewFile, open_sink
from tests.integration.lakes import Lake

ROWS = 700

pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


@pytest.fixture(params=["delta", "iceberg"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lake(kind: str, tmp_path: Path) -> Lake:
    return Lake(kind, tmp_path, str(tmp_path / "lake")).make()


@pytest.fixture(params=["disk", "s3"])
def any_lake(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Lake:
    if request.param == "disk":
        return Lake(kind, tmp_path, str(tmp_path / "lake")).make()
    store, folder = request.getfixturevalue("s3"), request.getfixturevalue("s3_folder")
    request.getfixturevalue("use_store")(store)
    return Lake(kind, tmp_path, f"{folder}/lake", store.access).make()


def test_runs_are_appended_each_once_whatever_is_repeated(any_lake: Lake) -> None:
    one, two = any_lake.write("one", ROWS), any_lake.write("two", 300, first=ROWS)
    first = batchonnx.run(any_lake.job(one))
    assert (first.is_new, first.predicted) == (True, ROWS)
    batchonnx.run(any_lake.job(two))
    before = any_lake.versions()
    again = batchonnx.run(any_lake.job(one))
    assert (again.is_new, again.table_version) == (False, first.table_version)
    assert (any_lake.ids(), any_lake.versions()) == (list(range(ROWS + 300)), before)
    assert batchonnx.verify(first.output, deep=True).predicted == ROWS
    assert f"version {first.table_version}" in format_summary(again)


def test_overwrite_leaves_the_run_s_rows_alone_and_only_once(lake: Lake) -> None:
    one, two = lake.write("one", ROWS), lake.write("two", 300, first=ROWS)
    batchonnx.run(lake.job(one))
    job = lake.job(two, output={"overwrite": True})
    batchonnx.run(job)
    before = lake.versions()
    batchonnx.run(job)
    assert (lake.ids(), lake.versions()) == (list(range(ROWS, ROWS + 300)), before)
    batchonnx.run(lake.job(one, output={"overwrite": True}))
    assert lake.ids() == list(range(ROWS))
    batchonnx.run(job)  # its rows have been replaced since: they come back
    assert lake.ids() == list(range(ROWS, ROWS + 300))


def test_what_dies_before_the_table_s_commit_is_finished_by_the_same_command(
    any_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = any_lake.job(any_lake.write("one", ROWS))
    with monkeypatch.context() as patch:
        patch.setattr(TableStep, "add", _die)
        with pytest.raises(_Death):
            batchonnx.run(job)
    assert any_lake.read().num_rows == 0
    summary = batchonnx.run(job)
    assert not summary.is_new, "nothing is scored again"
    assert any_lake.ids() == list(range(ROWS))


def test_what_dies_after_the_table_s_commit_adds_nothing_more(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lake.job(lake.write("one", ROWS))
    add = TableStep.add

    def add_and_die(*arguments: object) -> None:
        add(*arguments)  # type: ignore[arg-type]
        raise _Death

    with monkeypatch.context() as patch:
        patch.setattr(TableStep, "add", add_and_die)
        with pytest.raises(_Death):
            batchonnx.run(job)
    before = lake.versions()
    batchonnx.run(job)
    assert (lake.ids(), lake.versions()) == (list(range(ROWS)), before)


def test_of_commits_that_race_each_run_s_is_in_once(any_lake: Lake) -> None:
    """Four writers of two runs at the same moment, past all leases, as a holder that slept would be."""
    sink = open_sink(any_lake.job("unread.parquet"))
    assert sink is not None
    if any_lake.kind == "delta":
        batchonnx.run(any_lake.job(any_lake.write("zero", 1)))
    else:
        any_lake.catalog().create_table("db.scores", pa.schema([("id", pa.int64()), ("total", pa.float32())]))
    before = any_lake.read().num_rows
    files = {run: new_file(any_lake, run, rows) for run, rows in (("run-a", 3), ("run-b", 5))}
    barrier = threading.Barrier(4)

    def add(run: str) -> int | None:
        mine = open_sink(any_lake.job("unread.parquet"))
        assert mine is not None
        barrier.wait()
        schema = files[run].metadata.schema.to_arrow_schema()
        return mine.add(run, schema, [files[run]], overwrite=False)

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(add, ["run-a", "run-a", "run-b", "run-b"]))
    assert versions[0] == versions[1] != versions[2] == versions[3]
    assert any_lake.read().num_rows == before + 8


def test_the_first_runs_of_a_table_may_race(lake: Lake) -> None:
    if lake.kind == "iceberg":
        lake.catalog()  # SQLite's own tables can't be made by two at once
    jobs = [lake.job(lake.write(f"n{n}", 50, first=50 * n)) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(batchonnx.run, jobs))
    assert lake.ids() == list(range(150))


def test_a_table_is_read_at_the_version_of_the_plan(any_lake: Lake) -> None:
    one, two = any_lake.write("one", ROWS), any_lake.write("two", 300, first=ROWS)
    old = batchonnx.run(any_lake.job(one)).table_version
    batchonnx.run(any_lake.job(two))
    features = {"x": {"columns": ["total", "total", "total"]}}

    def copy(name: str, **changed: object) -> JobFile:
        return any_lake.job(any_lake.input(**changed), features=features, into=name)

    plan = batchonnx.plan(copy("past", version=old))
    assert f"of version {old} of the {any_lake.kind.capitalize()} table" in format_plan(plan)
    assert plan_as_dict(plan)["input"]["version"] == old  # type: ignore[index]
    assert batchonnx.run(copy("past", version=old)).predicted == ROWS
    assert batchonnx.run(copy("now")).predicted == ROWS + 300
    batchonnx.run(any_lake.job(any_lake.write("three", 10, first=5_000)))
    proof = batchonnx.verify(any_lake.folder / "now", deep=True)
    assert (proof.predicted, bool(proof.rescored)) == (ROWS + 300, True), "scored again at the old version"
    assert batchonnx.run(copy("now"), incremental=True).predicted == ROWS + 310


def test_a_result_that_does_not_fit_is_refused_before_a_row_is_read(lake: Lake) -> None:
    batchonnx.run(lake.job(lake.write("one", ROWS)))
    job = lake.job("one.parquet", outputs={"total": {"from": "total", "threshold": 0.5}})
    with pytest.raises(ContractError) as caught:
        batchonnx.plan(job)
    (problem,) = caught.value.problems
    assert problem.title == 'column "total" has another type in the table'
    assert (problem.facts["expected"], problem.facts["found"]) == ("float", "bool")
    with pytest.raises(ContractError) as caught:
        batchonnx.plan(lake.job("one.parquet", outputs={"sum": {"from": "total"}}))
    assert [problem.title for problem in caught.value.problems] == [
        'the table has a column "total", the result has not',
        'the table has no column "sum"',
    ]


def test_a_type_that_tables_do_not_have_is_refused(lake: Lake) -> None:
    lake.write("one", 10)
    table = pq.read_table(lake.folder / "one.parquet").append_column(
        "at", pa.array([1] * 10, pa.timestamp("ns"))
    )
    pq.write_table(table, lake.folder / "one.parquet")
    with pytest.raises(ContractError, match=f'"at" is timestamp.ns., which {lake.kind.capitalize()} tables'):
        batchonnx.plan(lake.job("one.parquet", keep=["id", "at"]))


def test_the_gate_keeps_a_result_from_the_table_until_it_is_published(lake: Lake) -> None:
    job = lake.job(lake.write("one", ROWS), gate={"total": {"max": -1000.0}})
    with pytest.raises(GateError):
        batchonnx.run(job)
    assert lake.read().num_rows == 0
    batchonnx.publish(batchonnx.plan(job).output, force=True)
    assert lake.ids() == list(range(ROWS))
    before = lake.versions()
    assert not batchonnx.run(job).is_new
    assert lake.versions() == before


def test_a_run_without_rows_is_added_once_too(lake: Lake) -> None:
    one = lake.write("one", ROWS)
    empty = lake.job({"path": one, "filter": "id < 0"})
    assert batchonnx.run(empty).table_version is None
    batchonnx.run(lake.job(one))
    assert batchonnx.run(empty).table_version is not None
    before = lake.versions()
    batchonnx.run(empty)
    assert (lake.ids(), lake.versions()) == (list(range(ROWS)), before)


def test_an_incremental_run_into_a_table_is_refused(lake: Lake) -> None:
    with pytest.raises(ContractError, match="needs a folder"):
        batchonnx.run(lake.job(lake.write("one", ROWS)), incremental=True)


def test_lists_structs_and_texts_reach_the_table(lake: Lake) -> None:
    lake.write("one", 5)
    table = pq.read_table(lake.folder / "one.parquet")
    extra = {
        "text": pa.array(["ä", None, "b" * 300, "", "z"]),
        "vector": pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32(), 2)),
        "pairs": pa.array([[{"label": "x", "score": 1.0}]] * 5),
        "at": pa.array([1] * 5, pa.timestamp("us", "UTC")),
    }
    for name, values in extra.items():
        table = table.append_column(name, values)
    pq.write_table(table, lake.folder / "one.parquet")
    batchonnx.run(lake.job("one.parquet", keep=["id", *extra]))
    found = lake.read().sort_by("id")
    for name, values in extra.items():
        assert found.column(name).to_pylist() == values.to_pylist()


class _Death(Exception):
    """In place of a kill."""


def _die(*_: object) -> None:
    raise _Death


def new_file(lake: Lake, run: str, rows: int) -> NewFile:
    """A part of a run, written past batchonnx."""
    table = pa.table({"id": pa.array(range(rows), pa.int64()), "total": pa.array([0.0] * rows, pa.float32())})
    local = lake.folder / f"{run}.parquet"
    pq.write_table(table, local)
    path = f"{lake.output()['path']}/{run}/part.parquet"
    if "://" in path:
        from batchonnx.storage.s3 import s3_client, split_url

        s3_client().put(*split_url(path), local.read_bytes())
    else:
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(local.read_bytes())
    return NewFile(path, local.stat().st_size, pq.read_metadata(local))
