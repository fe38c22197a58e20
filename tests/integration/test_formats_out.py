"""Results in every format and in folders by value keep what is promised: on a disk and in a bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ContractError, GateError, ProofError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.report.plan_view import format_plan
from batchonnx.scoring.progress import Progress
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

FILES, ROWS = 3, 9_000
WORDS = ["a b", "", None, "ü/=%", '"q",\n']
LAYOUTS: dict[str, dict[str, Any]] = {
    "arrow": {"format": "arrow", "row_group_rows": 1_000},
    "csv": {"format": "csv", "compression": "gzip"},
    "jsonl": {"format": "jsonl"},
    "folders": {"partition_by": ["word", "is_even"]},
    "cut": {"file_bytes": 65_536, "row_group_rows": 2_000, "compression": "none"},
    "all": {"format": "csv", "partition_by": ["word"], "file_bytes": 65_536},
}
Made = Callable[..., JobFile]


@pytest.fixture(params=["disk", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where results go: an absolute path, or a URL."""
    if request.param == "disk":
        return str(tmp_path / "out")
    use: UseStore = request.getfixturevalue("use_store")
    store: S3Server = request.getfixturevalue("s3")
    use(store)
    return f"{request.getfixturevalue('s3_folder')}/out"


@pytest.fixture
def job(tmp_path: Path, output: str) -> Made:
    """A job of three shards; given: keys of output; others: sections in place of its own."""
    models.row_sum(tmp_path / "model.onnx", 3)
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        write(tmp_path, number)

    def made(given: dict[str, Any], **others: Any) -> JobFile:
        spec: dict[str, Any] = {
            "model": {"path": "model.onnx"},
            "input": {"path": "in"},
            "features": {"x": {"columns": ["f0", "f1", "f2"]}},
            "keep": ["id", "word", "is_even"],
            "output": {"path": output, **given},
            "engine": {"batch_rows": 250, "workers": 2},
        }
        return job_from_dict(spec | others, folder=tmp_path)

    return made


def write(folder: Path, number: int, rows: int = ROWS) -> None:
    """A file that is a shard of its own; one of its sums is infinite, one is no number."""
    rng = np.random.default_rng(number)
    columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
    columns["f0"][:2] = np.inf, np.nan
    ids = np.arange(number * ROWS, number * ROWS + rows)
    word = pa.array([WORDS[i] for i in rng.integers(0, len(WORDS), rows)], pa.string())
    table = pa.table({"id": ids, "word": word, "is_even": ids % 2 == 0, **columns})
    pq.write_table(table, folder / "in" / f"{number}.parquet", compression="none", row_group_size=rows)


def rows_of(output: str) -> pa.Table:
    return batchonnx.dataset(output).to_table().sort_by("id")


def files_of(output: str) -> dict[str, str]:
    """Names of parts and of what lies beside them, and their digests."""
    if "://" in output:
        folder = ObjectFolder(output)
        names = [e.key for e in folder.list() if "part-" in e.key and "/commits/" not in e.key]
        contents = dict(zip(names, folder.get_all(names), strict=True))
    else:
        paths = (path for path in Path(output).rglob("*part-*") if path.is_file())
        contents = {str(path.relative_to(output)): path.read_bytes() for path in paths}
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def expected(folder: Path) -> pa.Table:
    rows = pads.dataset(folder / "in").to_table().sort_by("id")
    total = sum(rows.column(f"f{i}").to_numpy() for i in range(3))
    return rows.select(["id", "word", "is_even"]).append_column("total", pa.array(total, pa.float32()))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_result_holds_every_row_once_and_is_proved_and_explained(
    name: str, job: Made, output: str, tmp_path: Path
) -> None:
    summary = batchonnx.run(job(LAYOUTS[name]))
    assert summary.predicted == FILES * ROWS
    found, wanted = rows_of(output), expected(tmp_path)
    assert found.schema.names == wanted.schema.names
    for column in ("id", "word", "is_even"):
        assert found.column(column).to_pylist() == wanted.column(column).to_pylist()
    np.testing.assert_allclose(
        found.column("total").to_numpy(), wanted.column("total").to_numpy(), 1e-5, 1e-6
    )
    proof = batchonnx.verify(output, deep=True, rows=2_000, seed=3)
    assert (proof.predicted, proof.parts, proof.difference) == (FILES * ROWS, summary.parts, 0.0)
    (origin,) = batchonnx.explain(output, key=("id", str(ROWS + 77)))
    assert (origin.file, origin.file_row) == (str(tmp_path / "in" / "1.parquet"), 77)
    (same,) = batchonnx.explain(output, row=origin.row)
    assert same == origin


def interrupted(progress: Progress) -> None:
    """Ctrl-C, when a shard is done."""
    if progress.shards:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", LAYOUTS)
def test_bytes_depend_neither_on_workers_nor_on_a_resume(
    name: str, job: Made, output: str, tmp_path: Path
) -> None:
    one_worker = job(LAYOUTS[name], engine={"batch_rows": 250, "workers": 1})
    with pytest.raises(KeyboardInterrupt):
        batchonnx.run(one_worker, on_progress=interrupted)
    batchonnx.run(one_worker)
    batchonnx.run(job({**LAYOUTS[name], "path": f"{output}-undisturbed"}))
    assert files_of(output) == files_of(f"{output}-undisturbed")
    batchonnx.verify(output)


@pytest.mark.parametrize("name", ["csv", "jsonl", "folders", "all"])
def test_an_incremental_run_keeps_what_is_unchanged(
    name: str, job: Made, output: str, tmp_path: Path
) -> None:
    batchonnx.run(job(LAYOUTS[name]))
    write(tmp_path, 1, ROWS - 500)
    summary = batchonnx.run(job(LAYOUTS[name]), incremental=True)
    assert summary.kept == FILES - 1
    batchonnx.verify(output, deep=True, rows=1_000)
    assert rows_of(output).num_rows == FILES * ROWS - 500


@pytest.mark.parametrize("name", ["csv", "jsonl", "folders", "all"])
def test_the_gate_measures_it_against_the_former_result(
    name: str, job: Made, output: str, tmp_path: Path
) -> None:
    gate = {"total": {"max_psi": 0.2}, "word": {"max_shift": "5%"}}
    batchonnx.run(job(LAYOUTS[name], gate=gate))
    former = files_of(output)
    again = job({**LAYOUTS[name], "overwrite": True}, gate=gate, input={"path": "in", "filter": "f1 > 1"})
    with pytest.raises(GateError) as caught:
        batchonnx.run(again)
    assert [problem.facts["column"] for problem in caught.value.problems] == ["total"]
    assert files_of(output) == former
    batchonnx.publish(output, force=True)
    batchonnx.verify(output)
    assert files_of(output).keys().isdisjoint(former)


@pytest.mark.parametrize("name", ["folders", "all"])
def test_overwriting_leaves_nothing_of_the_former_result(
    name: str, job: Made, output: str, tmp_path: Path
) -> None:
    batchonnx.run(job(LAYOUTS[name]))
    batchonnx.run(job({"format": "jsonl", "overwrite": True}))
    assert all("=" not in path and path.endswith(".jsonl") for path in files_of(output))
    batchonnx.run(job({**LAYOUTS[name], "overwrite": True}))
    assert not [path for path in files_of(output) if path.endswith(".jsonl")]
    batchonnx.verify(output)


def test_hive_s_readers_read_the_folders(job: Made, output: str, tmp_path: Path) -> None:
    if "://" in output:
        pytest.skip("the same files")
    batchonnx.run(job(LAYOUTS["folders"]))
    told = pa.schema([("word", pa.string()), ("is_even", pa.bool_())])
    found = pads.dataset(output, partitioning=pads.partitioning(told, flavor="hive")).to_table().sort_by("id")
    assert found.select(["id", "word", "is_even"]) == rows_of(output).select(["id", "word", "is_even"])
    source = f"read_parquet('{output}/**/*.parquet', hive_partitioning = true)"
    query = f"select count(*), count(distinct word) from {source}"
    assert duckdb.sql(query).fetchall() == [(FILES * ROWS, len(WORDS) - 1)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_a_row_a_result_has_its_schema(name: str, job: Made, output: str) -> None:
    batchonnx.run(job(LAYOUTS[name], input={"path": "in", "filter": "f0 > 1000000 and f0 < 2000000"}))
    batchonnx.verify(output)
    found = batchonnx.dataset(output)
    assert found.count_rows() == 0
    assert found.schema.names == ["id", "word", "is_even", "total"]


def test_text_that_was_changed_is_found(job: Made, output: str) -> None:
    if "://" in output:
        pytest.skip("as on a disk")
    batchonnx.run(job(LAYOUTS["jsonl"]))
    part = sorted(Path(output).glob("*.jsonl"))[1]
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(ProofError) as caught:
        batchonnx.verify(output)
    assert caught.value.problems[0].facts["file"] == str(part)
    manifest = Path(output) / "_batchonnx" / "manifest.json"
    part.write_text("".join(lines[:-1]))
    fields = json.loads(manifest.read_text())
    for stored in (stored for commit in fields["commits"] for stored in commit["parts"]):
        if stored["path"] == part.name:
            stored["bytes"] = part.stat().st_size
            stored["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(fields))
    with pytest.raises(ProofError, match="other rows than its record"):
        batchonnx.verify(output)


@pytest.mark.parametrize(
    ("given", "told", "fix"),
    [
        ({"format": "csv"}, 'column "tags" is list<element: string>, which csv can\'t hold', "out of keep"),
        ({"partition_by": ["wrod"]}, 'no column "wrod" to partition the result by', "write word"),
        ({"partition_by": ["tags"]}, 'the result can\'t be partitioned by "tags"', "another column"),
        ({"partition_by": ["total"]}, 'the result can\'t be partitioned by "total"', "another column"),
    ],
)
def test_what_can_t_be_written_is_told_by_the_plan(
    given: dict[str, Any], told: str, fix: str, tmp_path: Path
) -> None:
    models.row_sum(tmp_path / "model.onnx", 3)
    rows = {f"f{i}": pa.array([1.0], pa.float32()) for i in range(3)}
    pq.write_table(pa.table({"word": ["a"], "tags": [["a"]], **rows}), tmp_path / "in.parquet")
    spec = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "keep": ["word", "tags"],
        "output": {"path": "out", **given},
    }
    with pytest.raises(ContractError) as caught:
        batchonnx.plan(job_from_dict(spec, folder=tmp_path))
    (problem,) = caught.value.problems
    assert problem.title.startswith(told)
    assert fix in problem.fix


def test_a_plan_tells_format_and_folders_and_no_table(job: Made, output: str) -> None:
    text = format_plan(
        batchonnx.plan(job({"format": "csv", "compression": "gzip", "partition_by": ["word"]}))
    )
    assert "csv, gzip, in folders by word" in text
    assert "\n  table " not in text


def test_too_many_folders_end_the_run_with_the_column_s_name(job: Made, output: str) -> None:
    if "://" in output:
        pytest.skip("as on a disk")
    with pytest.raises(ContractError) as caught:
        batchonnx.run(job({"partition_by": ["id"]}))
    assert caught.value.problems[0].facts["output.partition_by"] == "id"
    assert not Path(output).exists()
