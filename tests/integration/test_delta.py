"""Delta tables: what is read of their log, and what is refused."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyroaring import BitMap

import batchonnx
from batchonnx.errors import ContractError, InputError, OutputExistsError, StorageError
from batchonnx.scoring.progress import RunSummary
from tests.integration.lakes import Lake
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS = 200


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake("delta", tmp_path, str(tmp_path / "lake")).make()


def rows(count: int, **more: object) -> pa.Table:
    """Rows that the lake's model takes."""
    columns = {f"f{i}": pa.array([float(i)] * count, pa.float32()) for i in range(3)}
    return pa.table({"id": pa.array(range(count), pa.int64()), **columns, **more})


def score(lake: Lake, **changed: Any) -> RunSummary:
    """The table's rows into a folder."""
    return batchonnx.run(lake.job(lake.input(**changed.pop("source", {})), into="out", **changed))


def test_partition_values_are_columns_of_the_table_s_types(lake: Lake) -> None:
    """Some that can't stand in a path as they are; the log's word counts, not the folders' names."""
    texts = ["a b/ü%c=", "007", None, "__x"] * 5
    days = [datetime.date(2026, 1, 1 + n % 3) for n in range(20)]
    table = rows(20, text=pa.array(texts), day=pa.array(days), flag=pa.array([True] * 20))
    write_deltalake(lake.root, table, partition_by=["text", "day", "flag"])
    source = {"filter": "day >= '2026-01-02' and (text = '007' or text is null or text like 'a b/%')"}
    plan = batchonnx.plan(lake.job(lake.input(**source), into="out", keep=["id", "text", "day", "flag"]))
    assert [field.type for field in plan.keep] == [pa.int64(), pa.string(), pa.date32(), pa.bool_()]
    assert plan.pruned_rows > 0
    score(lake, source=source, keep=["id", "text", "day", "flag"])
    found = pq.read_table(lake.folder / "out", partitioning=None).sort_by("id")
    wanted = [n for n in range(20) if days[n].day >= 2 and texts[n] != "__x"]
    assert found.column("id").to_pylist() == wanted
    assert found.column("text").to_pylist() == [texts[n] for n in wanted]
    assert found.column("day").to_pylist() == [days[n] for n in wanted]


def test_files_that_the_log_has_removed_are_not_read_unless_that_is_said(lake: Lake) -> None:
    write_deltalake(lake.root, rows(ROWS))
    write_deltalake(lake.root, rows(30), mode="overwrite")
    assert score(lake).predicted == 30
    with pytest.raises(InputError, match="is a Delta table"):
        batchonnx.run(lake.job(lake.root, into="all"))
    every = {"path": lake.root, "format": "parquet"}
    assert batchonnx.run(lake.job(every, into="all")).predicted == ROWS + 30


def test_a_version_that_is_not_there_is_told(lake: Lake) -> None:
    write_deltalake(lake.root, rows(3))
    with pytest.raises(InputError, match="can't be used"):
        score(lake, source={"version": 9})
    with pytest.raises(InputError, match="isn't a Delta table"):
        batchonnx.run(lake.job({"path": str(lake.folder), "format": "delta"}, into="out"))


def test_a_file_that_is_gone_is_named(lake: Lake) -> None:
    write_deltalake(lake.root, rows(3))
    (part,) = Path(lake.root).glob("*.parquet")
    part.unlink()
    with pytest.raises(InputError, match="gone") as caught:
        score(lake)
    assert caught.value.problems[0].facts["file"] == str(part)


def test_deletion_vectors_are_refused(lake: Lake) -> None:
    write_deltalake(lake.root, rows(ROWS))
    log = Path(lake.root) / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    (add,) = (action["add"] for action in actions if "add" in action)
    bitmap = (
        (1681511377).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(4) + BitMap([1, 5]).serialize()
    )
    bitmap += bytes(-len(bitmap) % 4)
    vector = {"storageType": "i", "pathOrInlineDv": z85(bitmap), "sizeInBytes": len(bitmap), "cardinality": 2}
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    removed = {"path": add["path"], "deletionTimestamp": int(time.time() * 1000), "dataChange": True}
    commit = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"remove": removed},
        {"add": {**add, "deletionVector": vector}},
    ]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, commit)))
    with pytest.raises(InputError, match="deletion vectors") as caught:
        score(lake)
    assert "PURGE" in caught.value.problems[0].fix
    assert score(lake, source={"version": 0}).predicted == ROWS


def test_column_mapping_is_refused_both_ways(lake: Lake) -> None:
    mapped = {
        "delta.columnMapping.mode": "name",
        "delta.minReaderVersion": "2",
        "delta.minWriterVersion": "5",
    }
    fields = [pa.field("id", pa.int64()), pa.field("total", pa.float32())]
    try:
        DeltaTable.create(lake.root, pa.schema(fields), configuration=mapped)
    except Exception as error:
        pytest.skip(f"this deltalake makes no such table: {error}")
    with pytest.raises(InputError, match="column mapping"):
        score(lake)
    with pytest.raises(ContractError, match="column mapping"):
        batchonnx.plan(lake.job(lake.write("one", 3)))


def test_a_table_that_asks_for_more_than_files_is_refused(lake: Lake) -> None:
    table = pa.table({"id": pa.array([1], pa.int64()), "total": pa.array([1.0], pa.float32())})
    write_deltalake(lake.root, table)
    DeltaTable(lake.root).alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(ContractError, match=r"delta\.constraints\.positive"):
        batchonnx.plan(lake.job(lake.write("one", 3)))


def test_a_partitioned_table_is_refused(lake: Lake) -> None:
    table = pa.table({"id": pa.array([1], pa.int64()), "total": pa.array([1.0], pa.float32())})
    write_deltalake(lake.root, table, partition_by=["id"])
    with pytest.raises(ContractError, match="partitioned by id"):
        batchonnx.plan(lake.job(lake.write("one", 3)))


def test_statistics_in_the_log_are_the_footers(lake: Lake) -> None:
    lake.write("one", ROWS, first=7)
    batchonnx.run(lake.job("one.parquet"))
    (action,) = pa.table(lake.delta().get_add_actions(flatten=True)).to_pylist()
    assert (action["num_records"], action["min.id"], action["max.id"]) == (ROWS, 7, ROWS + 6)
    assert (action["null_count.id"], action["max.total"]) == (0, None), "NaN stands in no footer"


def test_rows_that_were_appended_cannot_be_made_the_only_ones(lake: Lake) -> None:
    one = lake.write("one", 3)
    batchonnx.run(lake.job(one))
    with pytest.raises(OutputExistsError, match="already"):
        batchonnx.run(lake.job(one, output={"overwrite": True}))
    assert lake.ids() == [0, 1, 2]


def test_vacuum_and_optimize_leave_a_run_added_once(lake: Lake) -> None:
    jobs = [lake.job(lake.write(name, 5, first=5 * place)) for place, name in enumerate("ab")]
    for job in jobs:
        batchonnx.run(job)
    lake.delta().optimize.compact()
    for path in Path(lake.root).rglob("*"):
        os.utime(path, (0, 0))
    lake.delta().vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert not batchonnx.run(jobs[0]).is_new
    lake.delta().vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    with pytest.raises(StorageError, match="its records are gone"):
        batchonnx.run(jobs[0])
    assert lake.ids() == list(range(10))


def test_a_table_is_reached_over_tls(
    tmp_path: Path, s3_tls: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "set to be removed")
    monkeypatch.delenv("SSL_CERT_FILE")
    use_store(s3_tls)
    lake = Lake("delta", tmp_path, "s3://lake/over-tls", s3_tls.access).make()
    batchonnx.run(lake.job(lake.write("one", 3)))
    assert lake.ids() == [0, 1, 2]


def test_without_the_package_the_way_to_it_is_told(lake: Lake) -> None:
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "x", "format": "delta"},
        "output": {"path": "out"},
    }
    (lake.folder / "job.yaml").write_text(json.dumps(job))
    code = "import sys; sys.modules['deltalake'] = None; from batchonnx.cli import main; "
    code += "main(['plan', 'job.yaml'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=lake.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'batchonnx[delta]'" in done.stderr


def z85(data: bytes) -> str:
    """ZeroMQ's base 85, as Delta writes small deletion vectors."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    words = (int.from_bytes(data[place : place + 4], "big") for place in range(0, len(data), 4))
    return "".join(digits[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))
