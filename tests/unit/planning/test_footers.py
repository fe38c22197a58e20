"""Footers are read once for each version of a file, and shared among equal files."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx.errors import InputError
from batchonnx.formats import footer_cache, parquet
from batchonnx.formats.footer import Footer
from batchonnx.planning.footers import read_footers
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import list_files


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "batchonnx"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose footers were read from the files themselves."""
    paths: list[str] = []
    read = parquet.read_footer

    def watched(file: FileEntry) -> Footer:
        paths.append(Path(file.path).name)
        return read(file)

    monkeypatch.setattr(parquet, "read_footer", watched)
    return paths


def write(path: Path, values: list[int | None], *, age_s: float = 60) -> None:
    table = pa.table({"a": pa.array(values, pa.int32()), "b": [[1.5, 2.5]] * len(values)})
    pq.write_table(table, path, row_group_size=2)
    then = time.time() - age_s
    os.utime(path, (then, then))


def footers(folder: Path) -> list[Footer]:
    return read_footers("parquet", list_files([str(folder)]))


def test_a_second_plan_opens_no_file_and_finds_the_same(tmp_path: Path, opened: list[str]) -> None:
    data = tmp_path / "in"
    data.mkdir()
    for n in range(150):
        write(data / f"{n}.parquet", [1, None, n])
    first = footers(data)
    assert len(opened) == 150
    opened.clear()
    again = footers(data)
    assert opened == []
    assert again == first
    assert again[0].nulls == {"a": 1}
    assert [group.rows for group in again[0].row_groups] == [2, 1]
    assert all(footer.schema is again[0].schema for footer in again)


def test_a_changed_file_is_read_again_and_alone(tmp_path: Path, opened: list[str]) -> None:
    data = tmp_path / "in"
    data.mkdir()
    for n in range(3):
        write(data / f"{n}.parquet", [1, 2])
    footers(data)
    opened.clear()
    write(data / "1.parquet", [1, 2, 3, 4, 5], age_s=30)
    assert [footer.rows for footer in footers(data)] == [2, 5, 2]
    assert opened == ["1.parquet"]


def test_a_file_that_changed_a_moment_ago_isnt_kept(tmp_path: Path, opened: list[str]) -> None:
    write(tmp_path / "a.parquet", [1], age_s=0)
    read_footers("parquet", list_files([str(tmp_path / "a.parquet")]))
    read_footers("parquet", list_files([str(tmp_path / "a.parquet")]))
    assert opened == ["a.parquet"] * 2


def test_schemas_that_differ_stay_different(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    write(data / "0.parquet", [1])
    pq.write_table(pa.table({"a": ["text"]}), data / "1.parquet")
    os.utime(data / "1.parquet", (1, 1))
    for _ in range(2):
        names = [footer.schema.names for footer in footers(data)]
        assert names == [["a", "b"], ["a"]]


def test_a_damaged_cache_is_done_without_and_replaced(
    tmp_path: Path, cache_folder: Path, opened: list[str]
) -> None:
    data = tmp_path / "in"
    data.mkdir()
    write(data / "0.parquet", [1, 2])
    cache_folder.mkdir(parents=True)
    stored = cache_folder / f"footers-{footer_cache.FORMAT_VERSION}.sqlite"
    stored.write_bytes(b"no database " * 1000)
    assert footers(data)[0].rows == 2
    assert footers(data)[0].rows == 2
    assert opened == ["0.parquet"]
    with sqlite3.connect(stored) as database:
        database.execute("UPDATE footers SET row_groups = 'no JSON'")
    assert footers(data)[0].rows == 2
    assert opened == ["0.parquet"] * 2


def test_a_cache_that_cant_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    write(tmp_path / "a.parquet", [1])
    for _ in range(2):
        assert read_footers("parquet", list_files([str(tmp_path / "a.parquet")]))[0].rows == 1
    assert opened == ["a.parquet"] * 2


def test_a_locked_cache_is_done_without(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footer_cache, "BUSY_S", 0.05)
    data = tmp_path / "in"
    data.mkdir()
    write(data / "0.parquet", [1, 2])
    footers(data)
    with sqlite3.connect(cache_folder / f"footers-{footer_cache.FORMAT_VERSION}.sqlite") as database:
        database.execute("BEGIN EXCLUSIVE")
        assert footers(data)[0].rows == 2


def test_the_oldest_footers_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr(footer_cache, "MOST_FOOTERS", 3)
    data = tmp_path / "in"
    data.mkdir()
    for n in range(5):
        write(data / f"{n}.parquet", [n])
    footers(data)
    opened.clear()
    footers(data)
    assert sorted(opened) == ["0.parquet", "1.parquet"]


def test_every_file_that_cant_be_read_is_named(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    write(data / "0.parquet", [1])
    for n in range(1, 4):
        (data / f"{n}.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(InputError) as caught:
        footers(data)
    text = str(caught.value)
    assert all(f"{n}.parquet" in text for n in range(1, 4))
