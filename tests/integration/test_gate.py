"""The gate keeps a result back that isn't what it should be; nobody sees it until it is released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ContractError, GateError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.report.preview import format_preview
from tests import models

ROWS = 20_000


def write(folder: Path, values: np.ndarray, labels: list[str] | None = None) -> None:
    table = pa.table({"v": values.astype(np.float32), "label": labels or ["a"] * len(values)})
    pq.write_table(table, folder / "in.parquet")


def job(folder: Path, gate: dict[str, dict[str, object]]) -> JobFile:
    return job_from_dict(
        {
            "model": {"path": str(models.identity(folder / "model.onnx", "float32", ["n", 1]))},
            "input": {"path": str(folder / "in.parquet")},
            "features": {"x": {"columns": ["v"]}},
            "keep": ["label"],
            "output": {"path": str(folder / "out"), "overwrite": True},
            "gate": gate,
        }
    )


def normal(mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(1).normal(mean, 1, ROWS)


def nan_in(values: np.ndarray, rows: int) -> np.ndarray:
    values[:rows] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "check", "found"),
    [
        (nan_in(normal(), 201), {"max_null": "1%"}, "1.0050% (201 of 20,000 rows)"),
        (np.append(normal(), -9.5), {"min": -9}, "-9.5"),
        (np.append(normal(), 9.5), {"max": 9}, "9.5"),
        (np.full(ROWS, 0.5), {"varies": True}, "0.5 in every row"),
    ],
)
def test_a_failed_check_leaves_the_run_staged_and_says_what_failed(
    tmp_path: Path, values: np.ndarray, check: dict[str, object], found: str
) -> None:
    write(tmp_path, values)
    with pytest.raises(GateError) as caught:
        batchonnx.run(job(tmp_path, {"y": check}))
    (problem,) = caught.value.problems
    (name,) = check
    assert (problem.facts["column"], problem.facts["found"]) == ("y", found)
    assert name in problem.facts["expected"]
    assert not (tmp_path / "out").exists()
    assert batchonnx.publish(tmp_path / "out", force=True).predicted == len(values)
    assert pads.dataset(tmp_path / "out").count_rows() == len(values)
    assert batchonnx.verify(tmp_path / "out").predicted == len(values)


def test_what_passes_is_published(tmp_path: Path) -> None:
    write(tmp_path, nan_in(normal(), 200))
    checks = {"max_null": "1%", "min": -10, "max": 10, "varies": True, "max_psi": 0.1}
    assert batchonnx.run(job(tmp_path, {"y": checks, "label": {"max_shift": "5%"}})).predicted == ROWS


def test_numbers_that_moved_since_the_published_result_are_kept_back(tmp_path: Path) -> None:
    made = job(tmp_path, {"y": {"max_psi": 0.25}})
    write(tmp_path, normal())
    batchonnx.run(made)
    write(tmp_path, normal(0.1))
    batchonnx.run(made)
    write(tmp_path, normal(1))
    with pytest.raises(GateError) as caught:
        batchonnx.run(made)
    # Of two normal distributions one standard deviation apart, the index over deciles is about 1.
    assert 0.5 < float(caught.value.problems[0].facts["found"]) < 1.5
    assert abs(np.mean(pads.dataset(tmp_path / "out").to_table().column("y").to_numpy()) - 0.1) < 0.05


def test_labels_that_moved_are_kept_back_and_told(tmp_path: Path) -> None:
    made = job(tmp_path, {"label": {"max_shift": "10%"}})
    write(tmp_path, normal(), ["a", "b"] * (ROWS // 2))
    batchonnx.run(made)
    write(tmp_path, normal(), ["a", "a", "a", "b"] * (ROWS // 4))
    with pytest.raises(GateError, match="moved by 25") as caught:
        batchonnx.run(made)
    assert caught.value.problems[0].facts["found"] == "'a' moved by 25.0000% of the rows"


def test_nothing_is_scored_again_when_the_gate_is_loosened(tmp_path: Path) -> None:
    write(tmp_path, normal())
    with pytest.raises(GateError):
        batchonnx.run(job(tmp_path, {"y": {"max": 1}}))
    summary = batchonnx.run(job(tmp_path, {"y": {"max": 100}}))
    assert (summary.resumed, summary.model_calls, summary.predicted) == (1, 0, ROWS)


def test_publish_without_force_asks_the_gate_again(tmp_path: Path) -> None:
    write(tmp_path, normal())
    with pytest.raises(GateError):
        batchonnx.run(job(tmp_path, {"y": {"max": 1}}))
    with pytest.raises(GateError):
        batchonnx.publish(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_there_has_to_be_a_run_that_waits(tmp_path: Path) -> None:
    write(tmp_path, normal())
    batchonnx.run(job(tmp_path, {}))
    with pytest.raises(StorageError, match="no complete run waits"):
        batchonnx.publish(tmp_path / "out", force=True)


@pytest.mark.parametrize(
    ("gate", "title"),
    [
        ({"Y": {"min": 0}}, "which the result doesn't have"),
        ({"label": {"max": 3}}, "which holds no numbers"),
    ],
)
def test_a_check_that_cant_be_made_is_found_by_plan(
    tmp_path: Path, gate: dict[str, dict[str, object]], title: str
) -> None:
    write(tmp_path, normal())
    with pytest.raises(ContractError, match=title):
        batchonnx.plan(job(tmp_path, gate))


def test_on_the_command_line_it_is_exit_code_4_until_released(tmp_path: Path) -> None:
    write(tmp_path, normal())
    models.identity(tmp_path / "model.onnx", "float32", ["n", 1])
    (tmp_path / "job.yaml").write_text(
        "model: {path: model.onnx}\ninput: {path: in.parquet}\nfeatures: {x: {columns: [v]}}\n"
        "output: {path: out}\ngate:\n  y: {max: 1}\n"
    )

    def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "batchonnx", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    refused = batch("run", "job.yaml")
    assert refused.returncode == 4
    assert 'the gate holds the result back: "y" fails max' in refused.stderr
    assert f"batchonnx publish {tmp_path / 'out'} --force" in refused.stderr
    assert batch("publish", "out").returncode == 4
    released = batch("publish", "out", "--force")
    assert (released.returncode, released.stdout) == (0, "published 20,000 predictions at out\n")
    assert batch("verify", "out").returncode == 0


KEPT = {
    "halves": pa.array([0.0, 0.5] * 50, pa.float16()),
    "views": pa.array(["a", "b"] * 50, pa.string_view()),
    "bytes": pa.array([b"a", b"b"] * 50, pa.binary_view()),
    "categories": pa.array(["a", "b"] * 50).dictionary_encode(),
    "flags": pa.array([True, False] * 50),
    "days": pa.array([1, 2] * 50, pa.date32()),
    "nanoseconds": pa.array([1, 2] * 50, pa.timestamp("ns", "Europe/Berlin")),
    "far years": pa.array([2**60, 1] * 50, pa.timestamp("us")),
    "clocks": pa.array([1, 2] * 50, pa.time64("ns")),
    "durations": pa.array([1, 2] * 50, pa.duration("ns")),
    "decimals": pa.array([1, 2] * 50, pa.decimal128(5, 2)),
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_kept_column_of_any_type_can_be_checked(tmp_path: Path, kind: str) -> None:
    """And shown: Python has no nanoseconds, and no year 38,000."""
    checks = {"label": {"max_null": "0%", "varies": True, "max_shift": "10%"}}
    made = job(tmp_path, checks)
    columns = {"v": np.zeros(100, np.float32), "label": KEPT[kind]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    for _ in range(2):
        assert batchonnx.run(made, fresh=True).predicted == 100
    pq.write_table(
        pa.table(columns | {"label": pa.concat_arrays([KEPT[kind][:1]] * 100)}), tmp_path / "in.parquet"
    )
    with pytest.raises(GateError) as caught:
        batchonnx.run(made)
    assert [problem.facts["expected"] for problem in caught.value.problems] == [
        "varies true",
        "max_shift 10%",
    ]
    assert "moved by 50" in caught.value.problems[1].facts["found"]
    assert batchonnx.verify(tmp_path / "out").predicted == 100
    (origin,) = batchonnx.explain(tmp_path / "out", row=3)
    assert origin.values["label"] is not None
    assert format_preview(tmp_path / "out").count("\n") == 6


@pytest.mark.parametrize("kind", [pa.float32(), pa.string(), pa.bool_(), pa.null()])
def test_a_column_of_nulls_is_told_by_its_nulls(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"v": np.zeros(100, np.float32), "label": pa.nulls(100, kind)}
    check: dict[str, object] = {"max_null": "10%", "varies": True}
    made = job(tmp_path, {"label": check | ({"min": 0} if kind == pa.float32() else {})})
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    with pytest.raises(GateError) as caught:
        batchonnx.run(made)
    found = [problem.facts["found"] for problem in caught.value.problems]
    assert found == ["100.0000% (100 of 100 rows)", "no value"]
