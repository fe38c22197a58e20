"""The same job gives the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.job.load import job_from_dict
from tests import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determinism")
    rng = np.random.default_rng(0)
    for number, (rows, group) in enumerate([(30_000, 5_000), (100, 7), (1, 1), (50_000, 50_000)]):
        columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=group)
    models.linear(folder / "model.onnx", classes=5)
    return folder


def parts(folder: Path, name: str, workers: int, **engine: object) -> dict[str, str]:
    output = folder / name
    api.run(
        job_from_dict(
            {
                "model": {"path": str(folder / "model.onnx")},
                "input": {"path": str(folder / "*.parquet"), "filter": "f0 > -1"},
                "features": {"x": {"columns": ["f0", "f1", "f2"]}},
                "outputs": {"best": {"from": "scores", "top_k": 2}, "scores": {"from": "scores"}},
                "keep": ["f0"],
                "output": {"path": str(output), "overwrite": True},
                "engine": {"workers": workers, "batch_rows": 256} | engine,
            }
        )
    )
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(output.glob("*.parquet"))}


def test_one_two_and_seven_workers_write_the_same_bytes(folder: Path) -> None:
    alone = parts(folder, "one", 1)
    assert len(alone) > 2
    assert parts(folder, "two", 2) == alone
    assert parts(folder, "seven", 7) == alone


def test_a_second_run_repeats_the_batch_size_that_the_first_one_measured(folder: Path) -> None:
    first = parts(folder, "auto", 2, batch_rows="auto")
    assert parts(folder, "auto", 2, batch_rows="auto") == first


def test_the_plan_is_a_pure_function_of_job_model_and_input(folder: Path) -> None:
    job = job_from_dict(
        {
            "model": {"path": str(folder / "model.onnx")},
            "input": {"path": str(folder) + "/*.parquet"},
            "features": {"x": {"columns": ["f0", "f1", "f2"]}},
            "output": {"path": str(folder / "out")},
        }
    )
    one, two = api.plan(job), api.plan(job)
    assert (one.fingerprint, one.shards) == (two.fingerprint, two.shards)
    models.linear(folder / "model.onnx", classes=5).touch()
    assert api.plan(job).fingerprint == one.fingerprint
    models.linear(folder / "other.onnx", classes=4)
    other = job_from_dict(
        job.job.model_dump(by_alias=True, exclude_none=True) | {"model": {"path": str(folder / "other.onnx")}}
    )
    assert api.plan(other).fingerprint != one.fingerprint
