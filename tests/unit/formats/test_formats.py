"""Each format gives the same rows, in batches of the size asked for, and names what is broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from batchonnx.errors import InputError
from batchonnx.formats.registry import format_of, get_format
from batchonnx.storage.entry import FileEntry

TABLE = pa.table({"a": range(1000), "b": [f"t{i}" for i in range(1000)], "c": [i / 4 for i in range(1000)]})


def entry(path: Path) -> FileEntry:
    return FileEntry(str(path), path.stat().st_size, "")


def write(path: Path, rows_in_group: int = 300) -> Path:
    suffix = path.name.partition(".")[2]
    if suffix == "parquet":
        pq.write_table(TABLE, path, row_group_size=rows_in_group)
    elif suffix == "feather":
        feather.write_feather(TABLE, str(path), chunksize=rows_in_group, compression="zstd")
    elif suffix == "arrows":
        with ipc.new_stream(str(path), TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=rows_in_group)
    elif suffix == "csv":
        pacsv.write_csv(TABLE, path)
    elif suffix == "tsv":
        pacsv.write_csv(TABLE, path, pacsv.WriteOptions(delimiter="\t"))
    else:
        text = "".join(json.dumps(row) + "\n" for row in TABLE.to_pylist())
        if suffix.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    return path


SUFFIXES = ["parquet", "feather", "arrows", "csv", "tsv", "jsonl", "jsonl.gz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunk_rows", [1, 64, 300, 5000])
def test_all_rows_come_in_order_with_the_columns_asked_for(
    tmp_path: Path, suffix: str, chunk_rows: int
) -> None:
    path = write(tmp_path / f"t.{suffix}")
    name = format_of(str(path))
    assert name is not None
    module = get_format(name)
    footer = module.read_footer(entry(path))
    assert footer.schema.equals(TABLE.schema)
    assert footer.rows in (None, 1000)
    groups = range(len(footer.row_groups))
    batches = list(module.read_rows(entry(path), footer, groups, ["c", "a"], chunk_rows))
    assert pa.Table.from_batches(batches).equals(TABLE.select(["c", "a"]))
    assert all(batch.num_rows <= chunk_rows for batch in batches)
    if footer.rows is None:
        assert {batch.num_rows for batch in batches[:-1]} <= {chunk_rows, 300, 100, 64, 300 % 64, 1}


def test_row_groups_are_read_one_by_one(tmp_path: Path) -> None:
    for suffix in ("parquet", "feather"):
        path = write(tmp_path / f"t.{suffix}")
        name = format_of(str(path))
        assert name is not None
        module = get_format(name)
        footer = module.read_footer(entry(path))
        assert [group.rows for group in footer.row_groups] == [300, 300, 300, 100]
        batches = list(module.read_rows(entry(path), footer, [1, 3], ["a"], 250))
        assert [batch.num_rows for batch in batches] == [250, 50, 100]
        assert batches[0]["a"][0].as_py() == 300


def test_a_footer_knows_the_nulls_of_flat_columns(tmp_path: Path) -> None:
    table = pa.table({"a": [1, None, 3], "b": [[1], None, [None]], "c": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    footer = get_format("parquet").read_footer(entry(tmp_path / "t.parquet"))
    assert footer.nulls == {"a": 1}


@pytest.mark.parametrize("suffix", ["parquet", "feather", "csv", "jsonl"])
def test_garbage_is_named_by_its_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b'\x00\xff{"' * 50)
    name = format_of(str(path))
    assert name is not None
    module = get_format(name)
    with pytest.raises(InputError) as caught:
        footer = module.read_footer(entry(path))
        list(module.read_rows(entry(path), footer, [0], footer.schema.names, 10))
    assert caught.value.problems[0].facts["file"] == str(path)


def test_a_late_change_of_type_in_csv_is_told_and_not_guessed_away(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,x\n" * 3_000_000 + "oops,y\n")
    module = get_format("csv")
    footer = module.read_footer(entry(path))
    with pytest.raises(InputError, match="can't be read") as caught:
        for _ in module.read_rows(entry(path), footer, [0], ["a"], 100_000):
            pass
    assert "oops" in caught.value.problems[0].facts["found"]


def test_a_file_is_a_row_of_path_size_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x00abc")
    module = get_format("files")
    footer = module.read_footer(entry(path))
    (batch,) = module.read_rows(entry(path), footer, [0], ["bytes", "size", "path"], 10)
    assert batch.to_pylist() == [{"bytes": b"\x00abc", "size": 4, "path": str(path)}]


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.PARQUET", "parquet"),
        ("a.pq", "parquet"),
        ("a.csv.gz", "csv"),
        ("a.ndjson", "jsonl"),
        ("a.txt", None),
        ("a", None),
    ],
)
def test_names_tell_formats(name: str, format_name: str | None) -> None:
    assert format_of(name) == format_name
