"""Rows that can't be scored: exactly those are put aside, and their neighbours lose nothing."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from onnx import helper

import batchonnx
from batchonnx.errors import BatchonnxError, ContractError, InputError, RowError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models

WORDS = 1_000
"""Codes that the model has a weight for; it fails as a whole where it is given another one."""

BATCH = 4_096
HOOK = """
import numpy as np

def encode(rows):
    codes = rows.column("code").to_numpy()
    if (codes == -7).any():
        raise ValueError("the code is -7")
    return codes
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lookup model: code int64[n] -> weight float32[n]."""
    table = np.random.default_rng(0).standard_normal(WORDS).astype(np.float32)
    np.save(tmp_path / "table.npy", table)
    node = helper.make_node("Gather", ["table", "code"], ["weight"])
    code, weight = models.value("code", "int64", ["n"]), models.value("weight", "float32", ["n"])
    models.save(tmp_path / "model.onnx", [node], [code], [weight], {"table": table})
    (tmp_path / "encoding.py").write_text(HOOK)
    return tmp_path


def write(folder: Path, rows: int, bad: dict[int, int], files: int = 4) -> np.ndarray:
    """Codes in files of equal length, of several row groups each; bad: row -> its code."""
    codes = np.random.default_rng(1).integers(0, WORDS, rows)
    for row, code in bad.items():
        codes[row] = code
    (folder / "in").mkdir(exist_ok=True)
    size = rows // files
    for number in range(files):
        share = slice(number * size, (number + 1) * size)
        table = pa.table({"id": np.arange(rows)[share], "code": codes[share]})
        pq.write_table(table, folder / "in" / f"{number}.parquet", row_group_size=size // 3 + 1)
    return codes


def job(folder: Path, max_bad_rows: int | str = 10, batch_rows: int = BATCH, **changed: object) -> JobFile:
    spec: dict[str, object] = {
        "model": {"path": str(folder / "model.onnx")},
        "input": {"path": str(folder / "in")},
        "features": {"code": {"columns": ["code"], "python": "encoding:encode"}},
        "keep": ["id"],
        "output": {"path": str(folder / "out")},
        "engine": {"batch_rows": batch_rows},
        "errors": {"max_bad_rows": max_bad_rows},
    }
    return job_from_dict(spec | changed, folder=folder)


def quarantined(folder: Path) -> list[dict[str, object]]:
    return pads.dataset(folder / "out" / "_batchonnx" / "quarantine").to_table().sort_by("id").to_pylist()


def require_good(folder: Path, codes: np.ndarray, bad: dict[int, int]) -> None:
    """Each row that isn't bad is there once, with its own weight."""
    rows = pads.dataset(folder / "out").to_table().sort_by("id")
    good = np.delete(np.arange(len(codes)), sorted(bad))
    np.testing.assert_array_equal(rows.column("id").to_numpy(), good)
    table = np.load(folder / "table.npy")
    np.testing.assert_array_equal(rows.column("weight").to_numpy(), table[codes[good]])


def test_four_bad_rows_in_a_million_are_found_with_a_logarithm_of_calls(folder: Path) -> None:
    rows = 1_000_000
    write(folder, rows, {})
    clean = batchonnx.run(job(folder))
    assert (clean.predicted, clean.quarantined) == (rows, 0)

    # The first and the last row of all, one in the middle of a batch; the hook's beside the model's.
    bad = {0: WORDS, 500_123: 2**40, 500_124: -7, rows - 1: -WORDS - 1}
    codes = write(folder, rows, bad)
    found = batchonnx.run(job(folder), fresh=True)

    assert (found.rows_in, found.predicted, found.quarantined) == (rows, rows - 4, 4)
    require_good(folder, codes, bad)
    told = quarantined(folder)
    assert [(row["id"], row["code"]) for row in told] == list(bad.items())
    assert [(row["batchonnx_file"], row["batchonnx_row"]) for row in told] == [
        (str(folder / "in" / f"{row // 250_000}.parquet"), row % 250_000) for row in bad
    ]
    errors = [str(row["batchonnx_error"]) for row in told]
    assert [("indices element out of data bounds" in error) for error in errors] == [True, True, False, True]
    assert "the code is -7" in errors[2]
    halvings = math.ceil(math.log2(BATCH))
    assert 3 * halvings <= found.model_calls - clean.model_calls <= 4 * (2 * halvings + 1)
    assert batchonnx.verify(folder / "out", deep=True).quarantined == 4


@pytest.mark.parametrize("batch_rows", [1, 2, 7, 1_000])
def test_bad_rows_beside_each_other_and_nothing_but_bad_rows(folder: Path, batch_rows: int) -> None:
    rows = 300
    some = {row: WORDS + row for row in (3, 4, 5, 6, 7, 50, 149, 150)}
    for bad in (some, dict.fromkeys(range(rows), WORDS)):
        codes = write(folder, rows, bad)
        found = batchonnx.run(job(folder, "100%", batch_rows), fresh=True)
        assert (found.predicted, found.quarantined) == (rows - len(bad), len(bad))
        require_good(folder, codes, bad)
        assert [row["id"] for row in quarantined(folder)] == sorted(bad)


def test_no_bad_row_is_allowed_unless_the_job_says_so(folder: Path) -> None:
    write(folder, 300, {70: WORDS})
    with pytest.raises(BatchonnxError) as caught:
        batchonnx.run(job(folder, 0))
    problem = caught.value.problems[0]
    assert problem.facts["file"] == str(folder / "in" / "0.parquet")
    assert problem.facts["row"] == "70"
    assert "max_bad_rows" in problem.fix
    assert not (folder / "out").exists()


@pytest.mark.parametrize(("most", "limit"), [(3, 3), ("1%", 3)])
def test_one_bad_row_too_many_ends_the_run(folder: Path, most: int | str, limit: int) -> None:
    bad = {row * 71: WORDS for row in range(limit)}
    write(folder, 300, bad)
    assert batchonnx.run(job(folder, most)).quarantined == limit
    write(folder, 300, bad | {299: WORDS})
    with pytest.raises(RowError) as caught:
        batchonnx.run(job(folder, most), fresh=True)
    assert f"({limit} rows)" in caught.value.problems[0].facts["errors.max_bad_rows"]
    assert len(caught.value.problems) > 1, "an example is told"


def test_what_was_committed_is_kept_when_the_limit_is_passed_and_then_raised(folder: Path) -> None:
    rows, half = 200_000, 100_000
    bad = dict.fromkeys(range(rows - 5, rows), WORDS)
    codes = write(folder, rows, bad)
    with pytest.raises(RowError):
        batchonnx.run(job(folder, 2, engine={"batch_rows": 512, "workers": 1}))
    assert not (folder / "out").exists()
    found = batchonnx.run(job(folder, 5, engine={"batch_rows": 512, "workers": 1}))
    assert found.resumed >= 8, "the larger shards, which are scored first"
    assert found.quarantined == 5
    assert found.model_calls < math.ceil(half / 512) + 5 * 2 * 9
    require_good(folder, codes, bad)
    batchonnx.verify(folder / "out", deep=True)


def test_rows_that_were_put_aside_by_a_life_before_count_in_the_next(folder: Path) -> None:
    rows = 120_000
    bad = {5: WORDS, rows - 2: WORDS, rows - 1: WORDS}
    write(folder, rows, bad)
    once = job(folder, 2, engine={"batch_rows": 512, "workers": 1})
    for _ in range(2):
        with pytest.raises(RowError) as caught:
            batchonnx.run(once)
        assert "3 bad rows" in caught.value.problems[0].facts["found"]


def test_what_every_row_is_at_fault_for_is_the_jobs_own_fault(folder: Path) -> None:
    """A hook that never works is no matter of rows: the budget is spent and the cause is told."""
    write(folder, 300, {})
    (folder / "encoding.py").write_text("def encode(rows):\n    return rows.column('cod')\n")
    with pytest.raises(BatchonnxError) as caught:
        batchonnx.run(job(folder, 10))
    assert "cod" in str(caught.value)


@pytest.mark.parametrize("most", [0, 10])
def test_an_output_hook_that_never_works_isnt_asked_for_every_row(folder: Path, most: int) -> None:
    write(folder, 100_000, {})
    (folder / "calls.py").write_text("made = 0\n")
    hook = "import calls\n\ndef take(values):\n    calls.made += 1\n    raise ValueError('never')\n"
    (folder / "never.py").write_text(hook)
    outputs = {"w": {"from": "weight", "python": "never:take"}}
    with pytest.raises(BatchonnxError, match="never"):
        batchonnx.run(job(folder, most, outputs=outputs, features={"code": {"columns": ["code"]}}))
    assert sys.modules["calls"].made < 100


def test_a_null_is_put_aside_and_the_rest_of_its_batch_is_scored(folder: Path) -> None:
    write(folder, 300, {})
    table = pa.table({"id": np.arange(4), "code": pa.array([1, None, 3, None], pa.int64())})
    pq.write_table(table, folder / "in" / "nulls.parquet")
    plain: dict[str, object] = {"code": {"columns": ["code"]}}
    with pytest.raises(ContractError, match="null"):
        batchonnx.run(job(folder, 0, features=plain))
    found = batchonnx.run(job(folder, 2, features=plain))
    assert (found.predicted, found.quarantined) == (302, 2)
    told = quarantined(folder)
    assert [row["batchonnx_row"] for row in told] == [1, 3]
    assert all("null" in str(row["batchonnx_error"]) for row in told)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_batch_may_be_nothing_but_nulls(folder: Path, share: float) -> None:
    """Encoders tell all rows that they see at fault: one by one they would take the square of the time."""
    rows = 60_000
    missing = np.random.default_rng(0).random(rows) < share
    (folder / "in").mkdir()
    codes = np.arange(rows) % WORDS
    table = pa.table({"id": np.arange(rows), "code": pa.array(codes, mask=missing)})
    pq.write_table(table, folder / "in" / "0.parquet")
    found = batchonnx.run(job(folder, "100%", rows, features={"code": {"columns": ["code"]}}))
    assert (found.predicted, found.quarantined) == (rows - missing.sum(), missing.sum())
    assert found.model_calls <= 4
    assert [row["id"] for row in quarantined(folder)] == np.flatnonzero(missing).tolist()
    require_good(folder, codes, dict.fromkeys(np.flatnonzero(missing).tolist(), 0))


def test_a_value_too_large_to_keep_is_left_out_of_the_quarantine(folder: Path) -> None:
    (folder / "in").mkdir()
    codes = pa.array([1, WORDS, WORDS])
    texts = pa.array(["a" * 100_000, "b" * 100_000, "short"])
    pq.write_table(pa.table({"id": range(3), "code": codes, "text": texts}), folder / "in" / "0.parquet")
    batchonnx.run(job(folder, features={"code": {"columns": ["code"]}}, keep=["id", "text"]))
    assert [row["text"] for row in quarantined(folder)] == [None, "short"]
    kept = pads.dataset(folder / "out").to_table().column("text").to_pylist()
    assert kept == ["a" * 100_000]


def test_a_model_that_fails_on_a_batch_but_on_none_of_its_rows_is_told_as_it_is(folder: Path) -> None:
    """Two rows at most: a constant that can't be broadcast to more."""
    (folder / "in").mkdir()
    pq.write_table(pa.table({"id": range(4), "v": np.ones(4, np.float32)}), folder / "in" / "0.parquet")
    node = helper.make_node("Add", ["x", "two"], ["y"])
    x, y = models.value("x", "float32", ["n"]), models.value("y", "float32", ["n"])
    models.save(folder / "model.onnx", [node], [x], [y], {"two": np.ones(2, np.float32)})
    assert onnx.load(folder / "model.onnx").graph.node
    with pytest.raises(BatchonnxError):
        batchonnx.run(job(folder, 4, 4, features={"x": {"columns": ["v"]}}))
    assert not (folder / "out").exists()


def test_the_share_of_bad_rows_is_of_kept_and_new_rows_together(folder: Path) -> None:
    write(folder, 80_000, dict.fromkeys(range(60, 80), 10000))
    assert batchonnx.run(job(folder, "0.1%")).quarantined == 20
    late = pa.table({"id": np.arange(80_000, 81_000), "code": [*np.full(1000, 3).tolist()[:-1], 10000]})
    pq.write_table(late, folder / "in" / "4.parquet")
    summary = batchonnx.run(job(folder, "0.1%"), incremental=True)
    assert (summary.quarantined, summary.rows_in) == (21, 81_000)
    assert summary.kept > 0


def test_a_predicted_value_is_looked_for_where_rows_were_put_aside_too(folder: Path) -> None:
    write(folder, 40_000, {5: 10_000})
    batchonnx.run(job(folder, keep=["id", "code"]))
    (found,) = batchonnx.explain(folder / "out", key=("id", "7"))
    weight = found.values["weight"]
    same = batchonnx.explain(folder / "out", row=found.row)
    assert same == [found]
    with pytest.raises(InputError, match="no row of the result has this key"):
        batchonnx.explain(folder / "out", key=("weight", "12345.0"))
    assert weight == pytest.approx(float(np.load(folder / "table.npy")[found.values["code"]]))
