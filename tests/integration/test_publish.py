"""A result appears complete or not at all, whatever ends the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.errors import ContractError, Interrupted, OutputBusyError, OutputExistsError, RowError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.scoring.progress import Progress
from tests import models

ROWS = 40_000


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet", row_group_size=1_000)
    return tmp_path / "table.parquet"


def job(table: Path, **changed: object) -> JobFile:
    model = models.linear(table.parent / "model.onnx")
    spec = {
        "model": {"path": str(model)},
        "input": {"path": str(table)},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": str(table.parent / "out"), "overwrite": True},
        "engine": {"batch_rows": 100},
    }
    return job_from_dict(spec | changed)


def rows_seen(folder: Path) -> set[int]:
    """What readers of the folder see now: pyarrow, DuckDB, a glob."""
    if not folder.exists() or not any(folder.iterdir()):
        return {0}
    by_glob = sum(pq.read_metadata(p).num_rows for p in folder.glob("*.parquet"))
    by_arrow = pads.dataset(folder, format="parquet", exclude_invalid_files=True).count_rows()
    ((by_duckdb,),) = duckdb.sql(f"select count(*) from '{folder}/*.parquet'").fetchall()
    return {by_glob, by_arrow, by_duckdb}


def test_nothing_is_visible_until_everything_is(table: Path) -> None:
    out = table.parent / "out"
    seen: list[set[int]] = []
    api.run(job(table), on_progress=lambda _: seen.append(rows_seen(out)))
    assert seen
    assert set().union(*seen) == {0}
    assert rows_seen(out) == {ROWS}


def test_a_former_result_is_there_until_the_new_one_is(table: Path) -> None:
    out = table.parent / "out"
    api.run(job(table, input={"path": str(table), "filter": "f0 > 0"}))
    former = rows_seen(out)
    seen: list[set[int]] = []
    api.run(job(table), on_progress=lambda _: seen.append(rows_seen(out)))
    assert set().union(*seen) == former
    assert rows_seen(out) == {ROWS}


def kept(folder: Path) -> list[str]:
    """What is left beside the output."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_bad_row_at_the_end_leaves_the_former_result(table: Path) -> None:
    api.run(job(table))
    worse = pq.read_table(table).append_column("k", pa.array([*range(ROWS - 1), None], pa.int64()))
    pq.write_table(worse, table, row_group_size=1_000, write_statistics=False)
    models.identity(table.parent / "ints.onnx", "int64", ["n"])
    broken = job(table, model={"path": str(table.parent / "ints.onnx")}, features={"x": {"column": "k"}})
    with pytest.raises(RowError) as caught:
        api.run(broken)
    assert caught.value.problems[0].facts["row"] == "39,999"
    assert rows_seen(table.parent / "out") == {ROWS}
    assert kept(table.parent) == [".out.batchonnx"]


def test_a_run_that_is_stopped_publishes_nothing_and_leaves_only_what_it_committed(table: Path) -> None:
    stop = threading.Event()

    def at_once(_: Progress) -> None:
        stop.set()

    slow = job(table, engine={"batch_rows": 1, "workers": 2})
    with pytest.raises(Interrupted):
        api.run(slow, on_progress=at_once, stop=stop)
    assert kept(table.parent) in ([], [".out.batchonnx"])
    assert {t.name for t in threading.enumerate() if t.name.startswith("worker")} == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_130_and_nothing_published(table: Path, number: int) -> None:
    spec = job(table, engine={"batch_rows": 1, "workers": 1}).job.model_dump_json(
        by_alias=True, exclude_none=True, exclude_defaults=True
    )
    (table.parent / "job.yaml").write_text(spec)
    command = [sys.executable, "-m", "batchonnx", "run", str(table.parent / "job.yaml")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    staging = table.parent
    while not any(p.name.startswith(".out.") for p in staging.iterdir()):
        assert running.poll() is None, running.stderr
    os.kill(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "nothing was published" in errors
    assert not (table.parent / "out").exists()
    assert kept(table.parent) in ([], [".out.batchonnx"])


def test_what_appears_at_the_output_meanwhile_is_not_overwritten(table: Path) -> None:
    out = table.parent / "out"

    def somebody_writes(_: Progress) -> None:
        out.mkdir(exist_ok=True)
        (out / "precious.txt").write_text("mine")

    with pytest.raises(OutputExistsError):
        api.run(job(table), on_progress=somebody_writes)
    assert (out / "precious.txt").read_text() == "mine"


def test_an_empty_folder_may_become_the_output(table: Path) -> None:
    (table.parent / "out").mkdir()
    api.run(job(table))
    assert rows_seen(table.parent / "out") == {ROWS}


@pytest.mark.parametrize("content", ['{"format": 1}', '{"format": 9}', "not JSON"])
def test_a_result_whose_records_can_t_be_read_can_be_replaced(table: Path, content: str) -> None:
    api.run(job(table))
    (table.parent / "out" / "_batchonnx" / "manifest.json").write_text(content)
    api.run(job(table), fresh=True)
    assert api.verify(table.parent / "out").predicted == ROWS


@pytest.mark.parametrize("there", ["an empty folder", "a result", "nothing"])
def test_a_link_is_followed_and_stays_a_link(table: Path, there: str) -> None:
    out, disk = table.parent / "out", table.parent / "large disk" / "scores"
    disk.parent.mkdir()
    if there == "an empty folder":
        disk.mkdir()
    elif there == "a result":
        api.run(job(table, output={"path": str(disk)}, input={"path": str(table), "filter": "f0 > 0"}))
    out.symlink_to(disk)
    seen: list[set[int]] = []
    before = rows_seen(disk)
    for _ in range(2):
        api.run(job(table), fresh=True, on_progress=lambda _: seen.append(rows_seen(disk)))
        assert seen.pop(0) == before
        before = {ROWS}
        assert out.is_symlink()
        assert rows_seen(disk) == rows_seen(out) == {ROWS}
        assert kept(table.parent) == kept(disk.parent) == []
        assert api.verify(out).predicted == api.verify(disk).predicted == ROWS
        seen.clear()


def test_all_names_of_a_folder_have_one_writer(table: Path) -> None:
    (table.parent / "link").symlink_to(table.parent / "out")
    busy: list[str] = []

    def another_run(_: Progress) -> None:
        with pytest.raises(OutputBusyError) as caught:
            api.run(job(table, output={"path": str(table.parent / "link")}), fresh=True)
        busy.append(str(caught.value))

    api.run(job(table), on_progress=another_run)
    assert busy


@pytest.mark.parametrize("output", ["in/out", "in/deep/er/out", "link/out"])
def test_an_output_among_the_input_is_refused_before_it_is_one(table: Path, output: str) -> None:
    """Else the first run would pass, and the second find predictions among its input."""
    (table.parent / "in").mkdir()
    table.rename(table.parent / "in" / "table.parquet")
    (table.parent / "link").symlink_to("in")
    spec = {"path": str(table.parent / "in")}
    with pytest.raises(ContractError, match="the output would be a part of the input"):
        api.plan(job(table, input=spec, output={"path": str(table.parent / output)}))
    hidden = str(table.parent / "in" / "_predictions")
    assert api.run(job(table, input=spec, output={"path": hidden})).predicted == ROWS
    assert api.run(job(table, input=spec, output={"path": hidden}), fresh=True).predicted == ROWS


@pytest.mark.parametrize("name", ["notes.txt", "part-1.parquet", "more/rows.parquet", ".hidden"])
def test_a_result_with_other_files_in_it_isnt_replaced(table: Path, name: str) -> None:
    """They would go with it."""
    out = table.parent / "out"
    api.run(job(table))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    for options in ({"overwrite": True}, {"fresh": True}):
        with pytest.raises(OutputExistsError, match="other files") as caught:
            api.run(job(table, input={"path": str(table), "filter": "f0 > 0"}), **options)
        assert caught.value.problems[0].facts["found"] == name.partition("/")[0]
    assert (out / name).read_text() == "mine"


def test_what_appears_in_a_former_result_meanwhile_isnt_removed_with_it(table: Path) -> None:
    out = table.parent / "out"
    api.run(job(table))
    with pytest.raises(OutputExistsError):
        api.run(job(table), fresh=True, on_progress=lambda _: (out / "notes.txt").write_text("mine"))
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert api.run(job(table), fresh=False, overwrite=True).predicted == ROWS
