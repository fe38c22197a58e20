"""Runs of the past, and how one result differs from another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.errors import BatchonnxError, ChangedError, InputError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS = 600


def make_job(folder: Path, output: str, /, **more: Any) -> JobFile:
    """x float32[n, 3] -> a class of two and its probability."""
    if not (folder / "model.onnx").exists():
        models.linear(folder / "model.onnx")
    if not (folder / "in").exists():
        (folder / "in").mkdir()
        rng = np.random.default_rng(0)
        for number in range(2):
            columns: dict[str, Any] = {f"f{i}": rng.standard_normal(ROWS // 2).astype("f4") for i in range(3)}
            columns["id"] = np.arange(ROWS // 2) + number * ROWS
            columns["kind"] = ["even", "odd"] * (ROWS // 4)
            pq.write_table(pa.table(columns), folder / "in" / f"{number}.parquet", row_group_size=50)
    job: dict[str, Any] = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "outputs": {
            "score": {"from": "scores", "softmax": True, "index": 1},
            "label": {"from": "scores", "argmax": True, "labels": ["good", "bad"]},
        },
        "keep": ["id", "kind"],
        "output": {"path": output},
    }
    return job_from_dict({**job, **more}, folder=folder)


def labels_of(output: Path | str) -> dict[int, str]:
    table = api.dataset(output).to_table(columns=["id", "label"])
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


@pytest.mark.parametrize("key", [None, "id"])
def test_two_runs_of_a_job_have_no_difference(tmp_path: Path, key: str | None) -> None:
    for name in ("a", "b"):
        api.run(make_job(tmp_path, name))
    found = api.diff(tmp_path / "a", tmp_path / "b", key=key)
    assert found.settings == ()
    assert found.files == (2, 0, 0, 0)
    assert (found.rows.both, found.rows.only_a, found.rows.only_b) == (ROWS, 0, 0)
    assert [(column.column, column.changed) for column in found.columns] == [("score", 0), ("label", 0)]


@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"format": "csv"},
        {"format": "jsonl", "partition_by": ["label"]},
        {"format": "arrow", "row_group_rows": 60},
    ],
)
def test_labels_that_another_model_gives_are_told(
    tmp_path: Path, key: str | None, other: dict[str, Any]
) -> None:
    """Whatever the other result is written in, and however its rows are ordered."""
    filtered = {"path": "in", "filter": "id < 750"}
    api.run(make_job(tmp_path, "a", input=filtered))
    features = {"x": {"columns": ["f2", "f1", "f0"]}}
    api.run(make_job(tmp_path, "b", output={"path": "b", **other}, features=features))
    a, b = labels_of(tmp_path / "a"), labels_of(tmp_path / "b")
    found = api.diff(tmp_path / "a", tmp_path / "b", key=key)
    assert (found.rows.both, found.rows.only_a, found.rows.only_b) == (len(a), 0, len(b) - len(a))
    label = next(column for column in found.columns if column.column == "label")
    assert label.changed == sum(a[i] != b[i] for i in a) > 0
    assert sum(number for _, _, number in label.labels) == label.changed
    assert "features.x.columns" in {name for name, _, _ in found.settings}
    score = next(column for column in found.columns if column.column == "score")
    assert score.largest is not None
    assert 0 < score.largest < 1


def test_rows_are_known_by_their_place_however_files_were_listed_and_dealt_out(tmp_path: Path) -> None:
    make_job(tmp_path, "a")
    for part in range(9):
        table = pq.read_table(tmp_path / f"in/{part % 2}.parquet").slice(part * 7, 11 + part)
        pq.write_table(table, tmp_path / f"in/more-{part}.parquet")
    listed = sorted(path.name for path in (tmp_path / "in").iterdir())
    api.run(make_job(tmp_path, "a"))
    api.run(make_job(tmp_path, "b", input={"path": [f"in/{name}" for name in reversed(listed)]}))
    found = api.diff(tmp_path / "a", tmp_path / "b")
    rows = sum(pq.read_metadata(tmp_path / "in" / name).num_rows for name in listed)
    assert (found.rows.both, found.rows.only_a, found.rows.only_b) == (rows, 0, 0)
    assert [(column.column, column.changed) for column in found.columns] == [("score", 0), ("label", 0)]


def test_rows_that_are_put_aside_now_and_weren_t_before_are_counted(tmp_path: Path) -> None:
    models.identity(tmp_path / "model.onnx", "int64", ["n"])
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "code"}},
        "keep": ["id"],
        "errors": {"max_bad_rows": 3},
    }
    for name, codes in (("a", [1, 2, None, 4]), ("b", [1, None, 3, None])):
        table = pa.table({"id": ["w", "x", "y", "z"], "code": pa.array(codes, pa.int64())})
        pq.write_table(table, tmp_path / "in.parquet")
        api.run(job_from_dict({**job, "output": {"path": name}}, folder=tmp_path))
    for key in ("id", None):
        rows = api.diff(tmp_path / "a", tmp_path / "b", key=key).rows
        assert (rows.both, rows.only_a, rows.only_b) == (1, 2, 1)
        assert (rows.newly_bad, rows.no_longer_bad) == (2, 1)


def test_a_key_that_doesn_t_tell_rows_apart_is_refused(tmp_path: Path) -> None:
    api.run(make_job(tmp_path, "a"))
    with pytest.raises(InputError, match="doesn't tell rows apart") as refused:
        api.diff(tmp_path / "a", tmp_path / "a", key="kind")
    assert "300 rows" in refused.value.problems[0].facts["found"]
    with pytest.raises(InputError, match='no column "nothing"'):
        api.diff(tmp_path / "a", tmp_path / "a", key="nothing")


def test_a_filter_that_can_t_be_asked_again_asks_for_a_key(tmp_path: Path) -> None:
    api.run(make_job(tmp_path, "a", input={"path": "in", "filter": "id < 90"}))
    table = pq.read_table(tmp_path / "in/0.parquet")
    pq.write_table(table.slice(1), tmp_path / "in/0.parquet")
    with pytest.raises(ChangedError) as changed:
        api.diff(tmp_path / "a", tmp_path / "a")
    assert "--key" in changed.value.problems[0].fix
    assert api.diff(tmp_path / "a", tmp_path / "a", key="id").rows.both == 90


def test_a_column_that_has_another_type_or_is_missing_is_told(tmp_path: Path) -> None:
    api.run(make_job(tmp_path, "a", outputs={"y": {"from": "scores", "index": 0}, "z": {"from": "scores"}}))
    api.run(make_job(tmp_path, "b", outputs={"y": {"from": "scores", "argmax": True}}))
    found = api.diff(tmp_path / "a", tmp_path / "b")
    assert [(column.type, column.compared) for column in found.columns] == [("float, then int64", 0)]
    assert found.unpaired == (("z", str(tmp_path / "a")),)


def test_runs_are_listed_with_those_that_were_replaced_or_not_finished(tmp_path: Path) -> None:
    api.run(make_job(tmp_path, "all/a"))
    features = {"x": {"columns": ["f2", "f1", "f0"]}}
    api.run(make_job(tmp_path, "all/a", features=features), overwrite=True)
    api.run(make_job(tmp_path, "all/day=1/b"))
    gate = {"score": {"max": 0.0}}
    with pytest.raises(BatchonnxError):
        api.run(make_job(tmp_path, "all/c", gate=gate))
    found = api.runs(tmp_path / "all")
    where = [(Path(run.output).name, run.state) for run in found]
    assert where == [("a", "replaced"), ("a", "published"), ("c", "unfinished"), ("b", "published")]
    assert found[0].predicted == found[1].predicted == ROWS
    assert found[0].run != found[1].run
    assert [run.output for run in api.runs(tmp_path / "all/day=1/b")] == [str(tmp_path / "all/day=1/b")]
    with pytest.raises(StorageError, match="no results"):
        api.runs(tmp_path / "in")


def test_results_in_a_bucket_are_listed_and_compared(
    tmp_path: Path, s3: S3Server, use_store: UseStore, s3_folder: str
) -> None:
    use_store(s3)
    api.run(make_job(tmp_path, f"{s3_folder}/a"))
    api.run(make_job(tmp_path, f"{s3_folder}/x/b"))
    api.run(
        make_job(tmp_path, f"{s3_folder}/a", features={"x": {"columns": ["f2", "f1", "f0"]}}), overwrite=True
    )
    found = [(run.output.removeprefix(s3_folder), run.state) for run in api.runs(s3_folder)]
    assert found == [("/a", "replaced"), ("/a", "published"), ("/x/b", "published")]
    assert api.diff(f"{s3_folder}/a", f"{s3_folder}/x/b").rows.both == ROWS


def test_the_commands_say_the_same(tmp_path: Path) -> None:
    api.run(make_job(tmp_path, "a"))
    api.run(make_job(tmp_path, "b", features={"x": {"columns": ["f2", "f1", "f0"]}}))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    told = CliRunner().invoke(main, ["diff", a, b, "--key", "id"])
    assert told.exit_code == 0, told.output
    assert "features.x.columns" in told.stdout
    assert "600 in both (by id)" in told.stdout
    found = json.loads(CliRunner().invoke(main, ["diff", a, b, "--json"]).stdout)
    assert found["rows"]["both"] == ROWS
    listed = CliRunner().invoke(main, ["runs", str(tmp_path)])
    assert listed.stdout.count("600 predicted") == 2


PEAK = """
import re, sys
from pathlib import Path
from batchonnx import api
found = api.diff(*sys.argv[1:3], key=sys.argv[3] or None)
# Not ru_maxrss: that is the parent's as well, whose memory a child has until it runs something else.
print(found.rows.both, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_doesn_t_grow_with_the_results(tmp_path: Path) -> None:
    """Four times the rows, nearly the same peak: what is joined at a time is bounded."""
    models.linear(tmp_path / "model.onnx")
    peaks = {}
    for rows in (3_000_000, 12_000_000):
        (tmp_path / "in").mkdir(exist_ok=True)
        for number in range(4):
            share = rows // 4
            rng = np.random.default_rng(number)
            columns = {f"f{i}": rng.standard_normal(share).astype("f4") for i in range(3)}
            columns["id"] = np.arange(share) + number * share
            pq.write_table(pa.table(columns), tmp_path / "in" / f"{number}.parquet")
        for name in ("a", "b"):
            job = make_job(tmp_path, f"{name}-{rows}", keep=["id"])
            api.run(job)
        ask = [sys.executable, "-c", PEAK, str(tmp_path / f"a-{rows}"), str(tmp_path / f"b-{rows}")]
        for key in ("id", ""):
            done = subprocess.run([*ask, key], capture_output=True, text=True, check=True)
            both, peak = done.stdout.split()
            assert int(both) == rows
            peaks[key, rows] = int(peak)
    print(peaks)
    for key in ("id", ""):
        assert peaks[key, 12_000_000] < 1.5 * peaks[key, 3_000_000]
