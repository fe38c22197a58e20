"""A run of what is new: unchanged parts stay as they are, changed ones are replaced, all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ChangedError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models

FILE_ROWS = 30_000


def write(folder: Path, name: str, first: int, rows: int = FILE_ROWS) -> None:
    """A file that is a shard of its own: ids from `first` on, and what the model sums up."""
    folder.mkdir(exist_ok=True)
    ids = np.arange(first, first + rows)
    rng = np.random.default_rng(first)
    columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
    pq.write_table(pa.table({"id": ids, **columns}), folder / name)


def job(folder: Path, **changed: object) -> JobFile:
    spec: dict[str, object] = {
        "model": {"path": str(models.row_sum(folder / "model.onnx"))},
        "input": {"path": str(folder / "in")},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "keep": ["id"],
        "output": {"path": str(folder / "out")},
        "engine": {"batch_rows": 256},
    }
    return job_from_dict(spec | changed)


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.parquet")}


def require_right(folder: Path) -> None:
    """The result has each row of the input once, with its own sum."""
    names = [f"f{i}" for i in range(3)]
    rows = pads.dataset(folder / "in").to_table().sort_by("id")
    sums = np.sum([rows.column(name).to_numpy() for name in names], 0)
    found = pads.dataset(folder / "out").to_table().sort_by("id")
    assert found.column("id").to_pylist() == rows.column("id").to_pylist()
    np.testing.assert_allclose(found.column("total").to_numpy(), sums, rtol=1e-4, atol=1e-5)
    assert batchonnx.verify(folder / "out", deep=True).rows_in == rows.num_rows


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Four files, scored."""
    for number in range(4):
        write(tmp_path / "in", f"{number}.parquet", number * FILE_ROWS)
    assert batchonnx.run(job(tmp_path)).parts == 4
    return tmp_path


def test_only_a_new_file_is_scored(scored: Path) -> None:
    before = inodes(scored / "out")
    write(scored / "in", "1-and-a-half.parquet", 10 * FILE_ROWS)
    summary = batchonnx.run(job(scored), incremental=True)
    assert (summary.kept, summary.parts, summary.predicted) == (4, 5, 5 * FILE_ROWS)
    after = inodes(scored / "out")
    assert not after.keys() & before.keys(), (
        "a reader between the two results must not find some of the files"
    )
    assert set(before.values()) <= set(after.values())
    require_right(scored)


def test_a_changed_file_replaces_its_part_and_a_removed_one_takes_its_part_away(scored: Path) -> None:
    before = inodes(scored / "out")
    write(scored / "in", "1.parquet", 20 * FILE_ROWS, rows=7)
    (scored / "in" / "2.parquet").unlink()
    summary = batchonnx.run(job(scored), incremental=True)
    assert (summary.kept, summary.parts, summary.predicted) == (2, 3, 2 * FILE_ROWS + 7)
    after = inodes(scored / "out")
    kept = {name[:11] for name, inode in after.items() if inode in before.values()}
    assert kept == {"part-000000", "part-000003"}
    assert {name[:11] for name in after} - kept == {"part-000004"}
    require_right(scored)


def test_small_files_that_share_a_part_with_a_changed_one_are_scored_again(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / "in", f"{number}.parquet", number * 100, rows=100)
    batchonnx.run(job(tmp_path))
    write(tmp_path / "in", "3.parquet", 7_000, rows=50)
    summary = batchonnx.run(job(tmp_path), incremental=True)
    assert (summary.kept, summary.predicted) == (0, 450)
    require_right(tmp_path)


def test_rows_that_a_filter_left_out_stay_accounted_for(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "in", f"{number}.parquet", number * FILE_ROWS)
    filtered = {"path": str(tmp_path / "in"), "filter": f"id < {FILE_ROWS // 2} or id > {2 * FILE_ROWS + 10}"}
    made = job(tmp_path, input=filtered)
    batchonnx.run(made)
    write(tmp_path / "in", "9.parquet", 9 * FILE_ROWS)
    summary = batchonnx.run(made, incremental=True)
    assert (summary.rows_in, summary.filtered) == (4 * FILE_ROWS, FILE_ROWS + FILE_ROWS // 2 + 11)
    assert summary.kept == 2  # the file in the middle needed no part: its statistics spoke against it
    assert batchonnx.verify(tmp_path / "out", deep=True).rows_in == 4 * FILE_ROWS


def test_without_a_change_there_is_nothing_to_do(scored: Path) -> None:
    before = inodes(scored / "out")
    assert not batchonnx.run(job(scored), incremental=True).is_new
    assert inodes(scored / "out") == before


def test_the_first_incremental_run_scores_everything(tmp_path: Path) -> None:
    write(tmp_path / "in", "0.parquet", 0)
    summary = batchonnx.run(job(tmp_path), incremental=True)
    assert (summary.kept, summary.predicted) == (0, FILE_ROWS)


def test_again_and_again(scored: Path) -> None:
    for night in range(3):
        write(scored / "in", f"night-{night}.parquet", (30 + night) * FILE_ROWS)
        summary = batchonnx.run(job(scored), incremental=True)
        assert summary.kept == 4 + night
    require_right(scored)


def test_a_whole_run_of_the_same_input_finds_the_result_done(scored: Path) -> None:
    write(scored / "in", "4.parquet", 4 * FILE_ROWS)
    batchonnx.run(job(scored), incremental=True)
    assert not batchonnx.run(job(scored)).is_new


def test_another_model_is_refused_by_name(scored: Path) -> None:
    write(scored / "in", "4.parquet", 4 * FILE_ROWS)
    made = job(scored)
    models.linear(scored / "model.onnx")
    with pytest.raises(ChangedError) as caught:
        batchonnx.run(made, incremental=True)
    assert {"model", "columns"} <= set(caught.value.problems[0].facts)
    assert "--incremental" in caught.value.problems[0].fix


def test_a_part_that_was_lost_is_made_again(scored: Path) -> None:
    next((scored / "out").glob("part-000002-*")).unlink()
    write(scored / "in", "4.parquet", 4 * FILE_ROWS)
    summary = batchonnx.run(job(scored), incremental=True)
    assert summary.kept == 3
    require_right(scored)
