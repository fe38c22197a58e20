"""What a cell of a CSV file is: null, text, a number; nothing is lost by guessing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from batchonnx.errors import InputError
from batchonnx.formats import csv
from batchonnx.storage.entry import FileEntry


def entry(path: Path) -> FileEntry:
    return FileEntry(str(path), path.stat().st_size, "")


def read(path: Path, text: str, columns: list[str] | None = None, chunk_rows: int = 1 << 20) -> pa.Table:
    path.write_text(text)
    footer = csv.read_footer(entry(path))
    names = columns if columns is not None else footer.schema.names
    batches = list(csv.read_rows(entry(path), footer, [0], names, chunk_rows))
    schema = pa.schema([footer.schema.field(name) for name in names])
    assert all(batch.schema.equals(schema) for batch in batches)
    return pa.Table.from_batches(batches, schema)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        # Text: only an empty cell without quotes is null.
        (["NA", "DE"], ["NA", "DE"]),
        (["null", "Null", "nan"], ["null", "Null", "nan"]),
        (["x", ""], ["x", None]),
        (["x", '""'], ["x", ""]),
        (['"NA"', "x"], ["NA", "x"]),
        (['"NA"', "1"], ["NA", "1"]),
        # Numbers: the usual words are null.
        (["1", "NA", ""], [1, None, None]),
        (["1.5", "NULL", "N/A"], [1.5, None, None]),
        (["2026-11-24", "null"], ["2026-11-24", None]),
        (["true", "n/a"], [True, None]),
        (["NA", ""], [None, None]),
        # Codes: what a number wouldn't give back is text.
        (["007", "8"], ["007", "8"]),
        (["8", "007", "NA"], ["8", "007", "NA"]),
        (["-01", "2"], ["-01", "2"]),
        (["00", "0"], ["00", "0"]),
        (["+491711234567", "+1"], ["+491711234567", "+1"]),
        (["0x1F", "0x2A"], ["0x1F", "0x2A"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["9223372036854775808"], ["9223372036854775808"]),
        # Numbers all the same.
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["0", "-5", "10"], [0, -5, 10]),
        (['"1"', '"2"'], [1, 2]),
        ([" 1", "2 "], [1, 2]),
        (["0.5", "00.5", "7"], [0.5, 0.5, 7.0]),
        (["1e3", "12345678901234567890"], [1e3, 12345678901234567890.0]),
        (["inf", "-1"], [float("inf"), -1.0]),
    ],
    ids=repr,
)
def test_a_cell_is_what_a_reader_would_take_it_for(
    tmp_path: Path, cells: list[str], values: list[object]
) -> None:
    rows = "".join(f"{cell},1\n" for cell in cells)
    found = read(tmp_path / "t.csv", f"a,one\n{rows}").column("a").to_pylist()
    assert [str(v) if type(v).__name__ == "date" else v for v in found] == values


def test_words_for_null_far_behind_change_no_text(tmp_path: Path) -> None:
    """Beyond the first block: the file is read anew from there, block for block."""
    rows, late = 700_000, 650_000
    lines = [f"{n},{'NA' if n % 1000 == 0 else f'name-{n}'},{n}.5\n" for n in range(rows)]
    lines[late] = f"{late},NA,NA\n"
    found = read(tmp_path / "t.csv", "id,name,v\n" + "".join(lines), ["v", "name", "id"], 10_000)
    assert found.column("id").to_pylist() == list(range(rows))
    assert found.column("v").null_count == 1
    assert found.column("v")[late].as_py() is None
    assert found.column("v")[late - 1].as_py() == late - 0.5
    assert found.column("name").null_count == 0
    assert found.column("name")[late].as_py() == "NA"


def test_what_is_neither_a_number_nor_null_is_told(tmp_path: Path) -> None:
    rows = "1\n" * 3_000_000
    with pytest.raises(InputError, match="the CSV file can't be read") as caught:
        read(tmp_path / "t.csv", f"a\n{rows}oops\n")
    assert "oops" in caught.value.problems[0].facts["found"]


@pytest.mark.parametrize(("name", "is_tsv"), [("t.tsv", True), ("T.TSV", True), ("a.tsv.d/t.csv", False)])
def test_only_a_files_own_name_makes_it_tsv(tmp_path: Path, name: str, is_tsv: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    sign = "\t" if is_tsv else ","
    assert read(tmp_path / name, f"a{sign}b\n1{sign}2\n").to_pylist() == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="the CSV file can't be read"):
        read(tmp_path / "t.csv", text)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "a,b\n").num_rows == 0


def test_no_column_is_asked_for_and_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\nNA\nx\n")
    footer = csv.read_footer(entry(path))
    assert sum(batch.num_rows for batch in csv.read_rows(entry(path), footer, [0], [], 10)) == 3
