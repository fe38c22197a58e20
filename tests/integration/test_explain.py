"""`explain` names the input row behind a prediction, without an id column to go by."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import batchonnx
from batchonnx.errors import ChangedError, InputError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.proof.explain import MOST_MATCHES
from tests import models

FILES, FILE_ROWS, WORDS = 3, 30_000, 1_000
BAD = (FILE_ROWS + 5, FILE_ROWS + 6, 2 * FILE_ROWS - 1)
"""Ids of the rows that the model has no weight for."""


NO_KEYS = {"same", "pair", "none", "even"}
"""Columns that don't tell rows apart."""


def lookup_model(path: Path) -> Path:
    """code int64[n] -> weight float32[n]; fails for a code from WORDS on."""
    table = np.arange(WORDS, dtype=np.float32) / 2
    node = helper.make_node("Gather", ["table", "code"], ["weight"])
    code, weight = models.value("code", "int64", ["n"]), models.value("weight", "float32", ["n"])
    return models.save(path, [node], [code], [weight], {"table": table})


def typed(ids: pa.Array) -> dict[str, pa.Array]:
    """A key of many types for each id."""
    numbers = ids.to_pylist()
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    moments = [start + datetime.timedelta(seconds=n) for n in numbers]
    return {
        "text": pa.array([f"k={n}" for n in numbers]),
        "view": pa.array([f"v{n}" for n in numbers], pa.string_view()),
        "word": pa.array([f"w{n}" for n in numbers]).dictionary_encode(),
        "half": pa.array([n + 0.5 for n in numbers]),
        "single": pa.array([n + 0.1 for n in numbers], pa.float32()),
        "price": pa.array([Decimal(n).scaleb(-2) for n in numbers], pa.decimal128(12, 2)),
        "day": pa.array([datetime.date(2000, 1, 1) + datetime.timedelta(days=n) for n in numbers]),
        "moment": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "plain": pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("ms")),
        "clock": pa.array([m.timetz().replace(tzinfo=None) for m in moments], pa.time64("us")),
        "even": pa.array([n % 2 == 0 for n in numbers]),
        "raw": pa.array([f"b{n}".encode() for n in numbers]),
        "large": pa.array([2**63 + n for n in numbers], pa.uint64()),
        "same": pa.array(["one"] * len(numbers)),
        "pair": pa.array([[n, n] for n in numbers]),
        "none": pa.nulls(len(numbers), pa.int64()),
    }


def job(folder: Path, **changed: Any) -> JobFile:
    spec: dict[str, Any] = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"code": {"column": "code"}},
        "output": {"path": "out"},
        "engine": {"batch_rows": 256},
        "errors": {"max_bad_rows": "100%"},
    }
    return job_from_dict(spec | changed, folder=folder)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files, each of several parts; `out` of all rows, `some` of those that a filter lets pass."""
    folder = tmp_path_factory.mktemp("scored")
    lookup_model(folder / "model.onnx")
    (folder / "in").mkdir()
    for number in range(FILES):
        ids = np.arange(FILE_ROWS) + number * FILE_ROWS
        codes = np.random.default_rng(number).integers(0, WORDS, FILE_ROWS)
        codes[np.isin(ids, BAD)] = WORDS
        table = pa.table({"id": ids, "code": codes, **typed(pa.array(ids))})
        pq.write_table(table, folder / "in" / f"{number}.parquet", row_group_size=7_000)
    keep = ["id", *typed(pa.array([0]))]
    batchonnx.run(job(folder, keep=keep))
    some = {"path": "in", "filter": f"code < 100 or id in ({', '.join(map(str, BAD))})"}
    batchonnx.run(job(folder, keep=["id"], input=some, output={"path": "some"}))
    return folder


@pytest.mark.parametrize("output", ["out", "some"])
def test_a_row_is_traced_to_its_file_and_its_place_there(scored: Path, output: str) -> None:
    parts = [pq.read_table(path, columns=["id"]) for path in sorted((scored / output).glob("*.parquet"))]
    ids = pa.concat_tables(parts).column("id").to_pylist()
    edges = np.cumsum([0, *map(len, parts)])
    assert len(parts) >= FILES
    rows = {*edges[:-1], *(edges[1:] - 1), *np.random.default_rng(0).integers(0, len(ids), 10)}
    for row in map(int, sorted(rows)):
        (origin,) = batchonnx.explain(scored / output, row=row)
        part = int(np.searchsorted(edges, row, side="right")) - 1
        assert origin.row == row
        assert (origin.part[:11], origin.part_row, origin.shard) == (
            f"part-{part:06}",
            row - edges[part],
            part,
        )
        assert origin.file == str(scored / "in" / f"{ids[row] // FILE_ROWS}.parquet")
        assert origin.file_row == ids[row] % FILE_ROWS
        assert origin.values["id"] == ids[row]
        assert origin.error is None


def test_what_a_prediction_depends_on_is_told(scored: Path) -> None:
    (origin,) = batchonnx.explain(scored / "some", row=0)
    assert origin.model_path == str(scored / "model.onnx")
    assert origin.model == batchonnx.verify(scored / "some").model
    assert origin.settings["engine.batch_rows"] == "256"
    assert "code < 100" in origin.settings["input.filter"]
    assert not [name for name in origin.settings if name.startswith("input /")], "one file is behind it"
    assert "model" not in origin.settings


@pytest.mark.parametrize("column", [name for name in typed(pa.array([0])) if name not in NO_KEYS])
def test_a_row_is_found_by_a_key_of_any_type(scored: Path, column: str) -> None:
    wanted = FILE_ROWS + 17
    key = typed(pa.array([wanted]))[column][0].as_py()
    text = key.decode() if isinstance(key, bytes) else str(key)
    (origin,) = batchonnx.explain(scored / "out", key=(column, text))
    assert (origin.file, origin.file_row) == (str(scored / "in" / "1.parquet"), 17)
    assert origin.values["id"] == wanted
    assert origin.row is not None
    assert batchonnx.explain(scored / "out", row=origin.row) == [origin]


@pytest.mark.parametrize("output", ["out", "some"])
def test_a_row_in_quarantine_is_found_by_its_key(scored: Path, output: str) -> None:
    for wanted in BAD:
        (origin,) = batchonnx.explain(scored / output, key=("id", str(wanted)))
        assert (origin.file, origin.file_row) == (str(scored / "in" / "1.parquet"), wanted - FILE_ROWS)
        assert origin.row is None
        assert origin.part.endswith(".quarantine")
        assert origin.error is not None
        assert "out of data bounds" in origin.error
        assert origin.values["code"] == WORDS
        assert "weight" not in origin.values


def test_a_row_that_was_filtered_out_is_in_no_place(scored: Path) -> None:
    codes = pq.read_table(scored / "in" / "0.parquet").column("code").to_numpy()
    left_out = int(np.flatnonzero(codes >= 100)[0])
    with pytest.raises(InputError, match="no row of the result has this key") as caught:
        batchonnx.explain(scored / "some", key=("id", str(left_out)))
    assert "input.filter" in caught.value.problems[0].fix


# column, value -> the title of the error, and what is found
WRONG_KEYS = {
    "no such column": ("nonsense", "1", 'the result has no column "nonsense"', "nonsense"),
    "no such key": ("id", "-5", "no row of the result has this key", "no row with -5"),
    "no value of the column": ("id", "seven", "the key isn't a value of its column", "seven"),
    "a number that is too large": ("id", "9" * 30, "the key isn't a value of its column", "9" * 30),
    "no moment": ("moment", "yesterday", "the key isn't a value of its column", "yesterday"),
    "a list": ("pair", "[1, 1]", "the key isn't a value of its column", "[1, 1]"),
    "nothing but nulls": ("none", "1", "no row of the result has this key", "no row with 1"),
    "an empty text": ("text", "", "no row of the result has this key", "no row with "),
    "too many": ("same", "one", "too many rows have this key", "more with one"),
}


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_a_key_that_tells_no_row_is_told(scored: Path, case: str) -> None:
    column, value, title, found = WRONG_KEYS[case]
    with pytest.raises(InputError) as caught:
        batchonnx.explain(scored / "out", key=(column, value))
    (problem,) = caught.value.problems
    assert (problem.title, problem.facts["found"]) == (title, found)


def test_many_rows_of_one_key_are_all_told(tmp_path: Path) -> None:
    lookup_model(tmp_path / "model.onnx")
    (tmp_path / "in").mkdir()
    codes = [7] * MOST_MATCHES + [8] * (MOST_MATCHES + 1)
    pq.write_table(pa.table({"code": codes}), tmp_path / "in" / "0.parquet")
    batchonnx.run(job(tmp_path, keep=[], outputs={"weight": {"from": "weight"}}))
    found = batchonnx.explain(tmp_path / "out", key=("weight", "3.5"))
    assert [origin.file_row for origin in found] == list(range(MOST_MATCHES))
    with pytest.raises(InputError, match="too many rows have this key"):
        batchonnx.explain(tmp_path / "out", key=("weight", "4"))


@pytest.mark.parametrize("row", [FILES * FILE_ROWS - len(BAD), 10**12, -1])
def test_a_row_beyond_the_result_is_told(scored: Path, row: int) -> None:
    with pytest.raises(InputError, match="the result has no such row") as caught:
        batchonnx.explain(scored / "out", row=row)
    assert caught.value.problems[0].facts["expected"] == f"0 to {FILES * FILE_ROWS - len(BAD) - 1:,}"


def test_a_result_without_a_row_is_told(tmp_path: Path) -> None:
    lookup_model(tmp_path / "model.onnx")
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"code": pa.array([], pa.int64())}), tmp_path / "in" / "0.parquet")
    batchonnx.run(job(tmp_path))
    with pytest.raises(InputError) as caught:
        batchonnx.explain(tmp_path / "out", row=0)
    assert caught.value.problems[0].facts["expected"] == "the result has no row"


def test_where_there_is_no_result_there_is_nothing_to_explain(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no result to look at"):
        batchonnx.explain(tmp_path / "out", row=0)


def test_row_or_key_and_not_both(scored: Path) -> None:
    with pytest.raises(TypeError):
        batchonnx.explain(scored / "out", row=1, key=("id", "1"))
    with pytest.raises(TypeError):
        batchonnx.explain(scored / "out")


def test_a_filter_is_asked_again_only_where_the_file_is_as_it_was(scored: Path, tmp_path: Path) -> None:
    lookup_model(tmp_path / "model.onnx")
    shutil.copytree(scored / "in", tmp_path / "in")
    batchonnx.run(job(tmp_path))
    some = {"path": "in", "filter": "code < 100"}
    batchonnx.run(job(tmp_path, input=some, output={"path": "some"}))
    path = tmp_path / "in" / "0.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert batchonnx.explain(tmp_path / "out", row=5)[0].file_row == 5, "without a filter records are enough"
    with pytest.raises(ChangedError) as caught:
        batchonnx.explain(tmp_path / "some", row=5)
    assert caught.value.problems[0].facts["file"] == str(path)


def test_kept_parts_of_an_incremental_run_are_traced_too(scored: Path, tmp_path: Path) -> None:
    lookup_model(tmp_path / "model.onnx")
    shutil.copytree(scored / "in", tmp_path / "in")
    made = job(tmp_path, keep=["id"], input={"path": "in", "filter": "code < 900"})
    batchonnx.run(made)
    (tmp_path / "in" / "1.parquet").unlink()
    shutil.copy(tmp_path / "in" / "0.parquet", tmp_path / "in" / "a.parquet")
    summary = batchonnx.run(made, incremental=True)
    assert 0 < summary.kept < summary.parts
    for row in range(0, summary.predicted, 1_999):
        (origin,) = batchonnx.explain(tmp_path / "out", row=row)
        source = pq.read_table(origin.file, columns=["id"])
        assert source.column("id")[origin.file_row].as_py() == origin.values["id"]


def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchonnx", "explain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_on_the_command_line_it_is_text_or_json(scored: Path) -> None:
    out = str(scored / "out")
    told = batch(out, "--row", "12")
    assert told.returncode == 0, told.stderr
    assert "row 12 of the result\n" in told.stdout
    assert f"row 12 of {scored / 'in' / '0.parquet'}" in told.stdout
    as_json = batch(out, "--key", "text=k=12", "--json")
    assert as_json.returncode == 0, as_json.stderr
    (origin,) = json.loads(as_json.stdout)
    assert (origin["file_row"], origin["values"]["text"]) == (12, "k=12")
    assert json.loads(batch(out, "--row", "999999999", "--json").stdout)["exit_code"] == 3


@pytest.mark.parametrize(
    "arguments", [(), ("--row", "1", "--key", "id=1"), ("--key", "id"), ("--row", "-1"), ("--row", "x")]
)
def test_a_command_that_asks_for_nothing_is_exit_code_2(scored: Path, arguments: tuple[str, ...]) -> None:
    assert batch(str(scored / "out"), *arguments).returncode == 2


files = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(
    layout=files,
    passing=st.integers(0, 100),
    is_filtered=st.booleans(),
    bad_share=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    batch_rows=st.sampled_from([1, 3, 16, 1_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_prediction_is_of_the_row_that_explain_names(
    layout: list[tuple[int, int]],
    passing: int,
    is_filtered: bool,
    bad_share: float,
    batch_rows: int,
    seed: int,
) -> None:
    """Random files and row groups, any share of rows filtered out or bad."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lookup_model(folder / "model.onnx")
        (folder / "in").mkdir()
        first = 0
        for number, (rows, group_rows) in enumerate(layout):
            codes = np.where(rng.random(rows) < bad_share, WORDS, rng.integers(0, WORDS, rows))
            columns = {"id": np.arange(first, first + rows), "code": codes, "u": rng.integers(0, 100, rows)}
            pq.write_table(pa.table(columns), folder / "in" / f"{number}.parquet", row_group_size=group_rows)
            first += rows
        source: dict[str, Any] = {"path": "in"} | ({"filter": f"u < {passing}"} if is_filtered else {})
        summary = batchonnx.run(job(folder, keep=["id"], input=source, engine={"batch_rows": batch_rows}))
        for row in {int(r) for r in rng.integers(0, summary.predicted, 8)} if summary.predicted else ():
            (origin,) = batchonnx.explain(folder / "out", row=row)
            behind = pq.read_table(origin.file).slice(origin.file_row, 1).to_pylist()[0]
            assert behind["id"] == origin.values["id"]
            assert origin.values["weight"] == behind["code"] / 2
        assert batchonnx.verify(folder / "out", deep=True, rows=50).predicted == summary.predicted
