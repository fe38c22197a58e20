"""Iceberg tables: what is read of their snapshots, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record
from pyiceberg.types import FloatType

import batchonnx
from batchonnx.errors import ContractError, InputError, JobFileError, StorageError
from batchonnx.scoring.progress import RunSummary
from tests.integration.lakes import Lake

ROWS = 200


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake("iceberg", tmp_path, str(tmp_path / "lake")).make()


def rows(count: int) -> pa.Table:
    """Rows that the lake's model takes."""
    columns = {f"f{i}": pa.array([float(i)] * count, pa.float32()) for i in range(3)}
    return pa.table({"id": pa.array(range(count), pa.int64()), **columns})


def filled(lake: Lake) -> Any:
    """A table of such rows, written by pyiceberg."""
    table = lake.catalog().create_table("db.scores", rows(0).schema)
    table.append(rows(ROWS))
    return table


def score(lake: Lake, **source: Any) -> RunSummary:
    """The table's rows into a folder."""
    return batchonnx.run(lake.job(lake.input(**source), into="out"))


def test_snapshots_of_other_writers_are_read_and_old_ones_by_their_id(lake: Lake) -> None:
    table = filled(lake)
    old = table.current_snapshot().snapshot_id
    table.overwrite(rows(30))
    assert score(lake).predicted == 30
    (lake.folder / "out").rename(lake.folder / "former")
    assert score(lake, version=old).predicted == ROWS


def test_what_is_not_there_is_told(lake: Lake) -> None:
    with pytest.raises(InputError, match="isn't there"):
        score(lake)
    lake.catalog().create_table("db.scores", rows(0).schema)
    with pytest.raises(InputError, match="is empty"):
        score(lake)
    with pytest.raises(InputError, match="no such snapshot"):
        score(lake, version=7)


def test_a_partitioned_table_is_read_as_its_files_are(lake: Lake) -> None:
    table = lake.catalog().create_table("db.scores", rows(0).schema)
    with table.update_spec() as change:
        change.add_identity("id")
    table.append(rows(4))
    assert score(lake, filter="id >= 2").predicted == 2


def test_a_file_that_is_gone_is_named(lake: Lake) -> None:
    (task,) = filled(lake).scan().plan_files()
    path = Path(task.file.file_path.removeprefix("file://"))
    path.unlink()
    with pytest.raises(InputError, match="gone") as caught:
        score(lake)
    assert caught.value.problems[0].facts["file"] == str(path)


def test_a_column_renamed_since_a_file_was_written_is_refused(lake: Lake) -> None:
    table = filled(lake)
    with table.update_schema() as change:
        change.rename_column("f0", "other")
    with table.update_schema() as change:
        change.add_column("f0", FloatType())
    with pytest.raises(InputError, match="renamed") as caught:
        score(lake)
    assert caught.value.problems[0].facts["found"] == "now called other"


def test_delete_files_are_refused(lake: Lake) -> None:
    table = filled(lake)
    (task,) = table.scan().plan_files()
    path = lake.folder / "deletes.parquet"
    pq.write_table(pa.table({"file_path": [task.file.file_path], "pos": pa.array([0], pa.int64())}), path)
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=path.stat().st_size,
    )
    deletes.spec_id = 0
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(deletes)
    assert table.scan().to_arrow().num_rows == ROWS - 1
    with pytest.raises(InputError, match="delete files") as caught:
        score(lake)
    assert "rewrite_data_files" in caught.value.problems[0].fix


def test_a_partitioned_table_is_refused(lake: Lake) -> None:
    table = lake.catalog().create_table("db.scores", pa.schema([("id", pa.int64()), ("total", pa.float32())]))
    with table.update_spec() as change:
        change.add_identity("id")
    with pytest.raises(ContractError, match="partitioned by id"):
        batchonnx.plan(lake.job(lake.write("one", 3)))


def test_rows_that_were_appended_become_the_only_ones(lake: Lake) -> None:
    one, two = lake.write("one", 3), lake.write("two", 3, first=3)
    for name in (one, two):
        batchonnx.run(lake.job(name))
    batchonnx.run(lake.job(one, output={"overwrite": True}))
    assert lake.ids() == [0, 1, 2]


def test_a_run_whose_snapshot_has_expired_is_not_added_again(lake: Lake) -> None:
    one, two = lake.job(lake.write("one", 3)), lake.job(lake.write("two", 3, first=3))
    expired = batchonnx.run(one).table_version
    batchonnx.run(two)
    lake.iceberg().maintenance.expire_snapshots().by_id(expired).commit()
    with pytest.raises(StorageError, match="already referenced"):
        batchonnx.run(one)
    assert lake.ids() == list(range(6))


def test_a_catalog_that_cannot_be_reached_is_told(lake: Lake) -> None:
    name = {
        "name": "db.scores",
        "catalog": "lake",
        "properties": {"type": "sql", "uri": "sqlite:////no/such.db"},
    }
    with pytest.raises(StorageError, match="can't be used"):
        batchonnx.plan(lake.job(lake.write("one", 3), output={"table": name}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("token", "hush"), ("s3.secret-access-key", "hush"), ("uri", "postgresql://me:hush@host/db")],
)
def test_a_secret_in_a_job_is_refused(lake: Lake, key: str, value: str) -> None:
    with pytest.raises(JobFileError, match="holds no secrets") as caught:
        lake.job("one.parquet", output={"table": {"name": "db.scores", "properties": {key: value}}})
    assert "hush" not in str(caught.value)


def test_without_the_package_the_way_to_it_is_told(lake: Lake) -> None:
    job = {
        "model": {"path": "model.onnx"},
        "input": {"table": {"name": "db.events"}, "format": "iceberg"},
        "output": {"path": "out"},
    }
    (lake.folder / "job.yaml").write_text(json.dumps(job))
    code = "import sys; sys.modules['pyiceberg'] = None; from batchonnx.cli import main; "
    code += "main(['plan', 'job.yaml'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=lake.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'batchonnx[iceberg]'" in done.stderr
