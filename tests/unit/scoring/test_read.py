"""Every row once, in order, from where it is said to come; batches that follow from the plan alone."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchonnx.errors import InputError
from batchonnx.formats import parquet
from batchonnx.planning import shards as shards_module
from batchonnx.planning.filter import parse_filter
from batchonnx.planning.listing import Listing, check_columns, list_input
from batchonnx.planning.shards import Shards, make_shards
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.read import read_chunks

Layout = list[tuple[int, int]]
"""(rows, rows of a row group) for each file."""


def write(folder: Path, layout: Layout) -> Listing:
    """Files whose column `v` counts on from one file to the next."""
    first = 0
    for number, (rows, group) in enumerate(layout):
        table = pa.table({"v": pa.array(range(first, first + rows), pa.int64())})
        pq.write_table(table, folder / f"f{number}.parquet", row_group_size=group)
        first += rows
    return list_input([str(folder)], None)


def chunks(listing: Listing, shards: Shards, filtered: str | None, batch: int, chunk: int) -> list[Chunk]:
    row_filter = parse_filter(filtered, listing.schema, "") if filtered else None
    return [
        found
        for shard in shards.shards
        for found in read_chunks(shard, listing, ["v"], row_filter, batch, chunk)
    ]


layouts = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(layouts, st.integers(1, 20), st.integers(1, 4), st.integers(-1, 60), st.integers(1, 400))
def test_every_row_comes_once_in_order_from_where_it_is_said_to(
    layout: Layout, batch: int, batches: int, above: int, target: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "SMALLEST_BYTES", target)
        folder = Path(name)
        listing = write(folder, layout)
        text = f"v > {above}" if above >= 0 else None
        row_filter = parse_filter(text, listing.schema, "") if text else None
        shards = make_shards(listing, row_filter)
        found = chunks(listing, shards, text, batch, batch * batches)
        total = sum(rows for rows, _ in layout)
        values = [value for chunk in found for value in chunk.columns["v"].to_pylist()]
        assert values == [v for v in range(total) if v > above]
        assert sum(c.filtered for c in found) + shards.pruned_rows + len(values) == total
        starts = dict(
            zip([f.path for f in listing.files], np.cumsum([0, *(r for r, _ in layout)]), strict=False)
        )
        for chunk in found:
            assert chunk.columns.num_rows <= batch * batches
            for row, value in enumerate(chunk.columns["v"].to_pylist()):
                path, index = chunk.origin(row)
                assert starts[path] + index == value


@given(layouts, st.integers(1, 500))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_row_group_is_in_exactly_one_shard_in_order(layout: Layout, target: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "SMALLEST_BYTES", target)
        listing = write(Path(name), layout)
        shards = make_shards(listing, None).shards
    seen = [(s.file, g) for shard in shards for s in shard.sources for g in s.row_groups]
    wanted = [
        (number, group)
        for number, file in enumerate(listing.files)
        for group, info in enumerate(file.footer.row_groups)
        if info.rows
    ]
    assert seen == wanted
    assert [shard.number for shard in shards] == list(range(len(shards)))


def test_pieces_of_a_batch_or_more_stay_alone_and_smaller_ones_are_joined(tmp_path: Path) -> None:
    listing = write(tmp_path, [(100, 100), (3, 3), (4, 4), (100, 100)])
    found = chunks(listing, make_shards(listing, None), None, 10, 50)
    assert [chunk.columns.num_rows for chunk in found] == [50, 50, 7, 50, 50]
    assert [len(chunk.segments) for chunk in found] == [1, 1, 2, 1, 1]


def test_a_small_piece_does_not_cost_its_large_neighbour_a_copy(tmp_path: Path) -> None:
    listing = write(tmp_path, [(5, 5), (20, 20), (5, 5)])
    found = chunks(listing, make_shards(listing, None), None, 10, 100)
    assert [chunk.columns.num_rows for chunk in found] == [5, 20, 5]


def test_joining_stops_at_a_batch_and_never_passes_a_chunk(tmp_path: Path) -> None:
    listing = write(tmp_path, [(28, 7)])
    shards = make_shards(listing, None)
    assert [c.columns.num_rows for c in chunks(listing, shards, None, 10, 20)] == [14, 14]
    assert [c.columns.num_rows for c in chunks(listing, shards, None, 10, 10)] == [7, 7, 7, 7]


@pytest.mark.parametrize("filtered", [None, "v >= 0"])
@pytest.mark.parametrize("partition", ["", "day=1"])
def test_large_pieces_are_what_the_reader_read_not_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filtered: str | None, partition: str
) -> None:
    folder = tmp_path / partition
    folder.mkdir(exist_ok=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(800, dtype=np.float32)), 8)
    pq.write_table(pa.table({"v": range(100), "x": vectors}), folder / "a.parquet", row_group_size=50)
    listing = list_input([str(tmp_path)], None)
    read: list[pa.RecordBatch] = []
    read_rows = parquet.read_rows

    def remember(*arguments: Any) -> Iterator[pa.RecordBatch]:
        for batch in read_rows(*arguments):
            read.append(batch)
            yield batch

    monkeypatch.setattr(parquet, "read_rows", remember)
    row_filter = parse_filter(filtered, listing.schema, "") if filtered else None
    (shard,) = make_shards(listing, row_filter).shards
    found = list(read_chunks(shard, listing, ["v", "x"], row_filter, 10, 20))
    assert len(found) == 6
    for chunk, batch in zip(found, read, strict=True):
        for name in ("v", "x"):
            here, there = chunk.columns.column(name), batch.column(name)
            assert [b and b.address for b in here.buffers()] == [b and b.address for b in there.buffers()]


def test_batches_do_not_depend_on_how_files_are_gathered_into_chunks(tmp_path: Path) -> None:
    listing = write(tmp_path, [(1000, 300)])
    for chunk_rows in (10, 50, 100):
        found = chunks(listing, make_shards(listing, None), None, 10, chunk_rows)
        cuts = {
            first
            for c in found
            for first in range(c.segments[0].first_row, c.segments[0].first_row + c.columns.num_rows, 10)
        }
        assert cuts == {
            first for start in (0, 300, 600, 900) for first in range(start, min(start + 300, 1000), 10)
        }


# Filters


def test_places_are_kept_only_where_rows_were_dropped(tmp_path: Path) -> None:
    listing = write(tmp_path, [(40, 20)])
    shards = make_shards(listing, None)
    whole, holed = chunks(listing, shards, "v < 20 or v in (25, 27, 39)", 10, 20)
    assert whole.segments[0].index is None
    assert [holed.origin(row)[1] for row in range(3)] == [25, 27, 39]
    assert (whole.filtered, holed.filtered) == (0, 17)


def test_rows_dropped_after_the_last_chunk_are_counted_by_an_empty_one(tmp_path: Path) -> None:
    listing = write(tmp_path, [(50, 10)])
    full, rest = chunks(listing, make_shards(listing, None), "v < 10", 10, 10)
    assert (full.columns.num_rows, full.filtered) == (10, 0)
    assert (rest.columns.num_rows, rest.filtered, rest.segments) == (0, 40, ())
    assert rest.columns.schema == full.columns.schema


def test_a_filter_that_nothing_passes_leaves_a_count_and_no_rows(tmp_path: Path) -> None:
    listing = write(tmp_path, [(50, 10), (3, 3)])
    (rest,) = chunks(listing, make_shards(listing, None), "v < 0", 10, 10)
    assert (rest.columns.num_rows, rest.filtered) == (0, 53)


def test_columns_that_only_the_filter_reads_do_not_come_along(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2, 3], "b": [1, None, 3], "c": [1, 2, 2]}), tmp_path / "a.parquet")
    listing = list_input([str(tmp_path)], None)
    row_filter = parse_filter("b is not null and c > 1", listing.schema, "")
    (shard,) = make_shards(listing, row_filter).shards
    (chunk,) = read_chunks(shard, listing, ["a"], row_filter, 10, 10)
    assert chunk.columns.to_pydict() == {"a": [3]}
    assert chunk.origin(0) == (str(tmp_path / "a.parquet"), 2)


def test_rows_keep_their_order_however_large_the_piece(tmp_path: Path) -> None:
    listing = write(tmp_path, [(300_000, 300_000)])
    found = chunks(listing, make_shards(listing, None), "v >= 3 and v != 70000", 1 << 18, 1 << 18)
    values = np.concatenate([chunk.columns["v"].to_numpy() for chunk in found])
    assert np.array_equal(values, np.delete(np.arange(300_000), [0, 1, 2, 70_000]))


TENSOR = pa.fixed_shape_tensor(pa.float32(), [2])
ARRAYS: dict[str, pa.Array] = {
    "text views": pa.array(["a", None, "c", "d"], pa.string_view()),
    "byte views": pa.array([b"a", None, b"c", b"d"], pa.binary_view()),
    "dictionary": pa.array(["a", None, "c", "d"], pa.dictionary(pa.int32(), pa.string())),
    "fixed lists": pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, None]], pa.list_(pa.float32(), 2)),
    "tensors": TENSOR.wrap_array(pa.array([[float(i), 0.0] for i in range(4)], pa.list_(pa.float32(), 2))),
    "lists": pa.array([[[1], []], None, [[2, None]], []], pa.list_(pa.list_(pa.int64()))),
    "structs": pa.array([{"a": 1}, None, {"a": 3}, {"a": None}]),
    "nulls": pa.nulls(4),
    "decimals": pa.array([1, None, 3, 4], pa.decimal128(5, 2)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_values_of_every_layout_pass_a_filter_and_are_joined_unchanged(tmp_path: Path, kind: str) -> None:
    table = pa.table({"n": [0, 1, 2, 3], "x": ARRAYS[kind]})
    for name in ("1.arrow", "2.arrow"):
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    listing = list_input([str(tmp_path)], None)
    row_filter = parse_filter("n != 2", listing.schema, "")
    (shard,) = make_shards(listing, row_filter).shards
    (chunk,) = read_chunks(shard, listing, ["x"], row_filter, 100, 100)
    passed = [table["x"].to_pylist()[i] for i in (0, 1, 3)]
    assert chunk.columns["x"].type == table["x"].type
    assert [str(value) for value in chunk.columns["x"].to_pylist()] == [str(value) for value in passed * 2]
    assert [chunk.origin(row)[1] for row in range(6)] == [0, 1, 3, 0, 1, 3]


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
@pytest.mark.parametrize("ordered", [False, True])
def test_the_categories_of_many_files_fit_into_one_column(tmp_path: Path, suffix: str, ordered: bool) -> None:
    """As pandas writes them: int8 where one file has few, int16 where it has more."""
    for number, (count, index) in enumerate([(100, pa.int8()), (100, pa.int8()), (200, pa.int16())]):
        words = pa.array([f"{number}-{i}" for i in range(count)])
        places = pa.array(range(count), index)
        table = pa.table({"x": pa.DictionaryArray.from_arrays(places, words, ordered=ordered)})
        if suffix == "parquet":
            pq.write_table(table, tmp_path / f"{number}.parquet")
        else:
            with pa.ipc.new_file(str(tmp_path / f"{number}.arrow"), table.schema) as writer:
                writer.write_table(table)
    listing = list_input([str(tmp_path)], None)
    check_columns(listing, ["x"])
    row_filter = parse_filter("x not in ('0-1', '2-199')", listing.schema, "")
    (shard,) = make_shards(listing, row_filter).shards
    (chunk,) = read_chunks(shard, listing, ["x"], row_filter, 1000, 1000)
    assert chunk.columns["x"].type == pa.dictionary(pa.int32(), pa.string(), ordered)
    assert [chunk.columns["x"][row].as_py() for row in (0, 1, 99, 397)] == ["0-0", "0-2", "1-0", "2-198"]
    assert (chunk.columns.num_rows, chunk.filtered) == (398, 2)


# Columns


def partitioned(folder: Path) -> Listing:
    for day, place in (("1", "de"), ("2", "__HIVE_DEFAULT_PARTITION__")):
        path = folder / f"day={day}" / f"place={place}" / "a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"v": [10 * int(day), 10 * int(day) + 1]}), path)
    return list_input([str(folder)], None)


def test_folders_become_columns_in_the_order_asked(tmp_path: Path) -> None:
    listing = partitioned(tmp_path)
    (shard,) = make_shards(listing, None).shards
    (chunk,) = read_chunks(shard, listing, ["place", "v", "day"], None, 10, 10)
    assert chunk.columns.to_pydict() == {
        "place": ["de", "de", None, None],
        "v": [10, 11, 20, 21],
        "day": [1, 1, 2, 2],
    }
    assert chunk.columns.schema.types == [pa.string(), pa.int64(), pa.int64()]


def test_folders_can_be_filtered_beside_columns_and_read_alone(tmp_path: Path) -> None:
    listing = partitioned(tmp_path)
    row_filter = parse_filter("day = 1 and v > 10 or place is null and v = 20", listing.schema, "")
    (shard,) = make_shards(listing, row_filter).shards
    (chunk,) = read_chunks(shard, listing, ["day"], row_filter, 10, 10)
    assert chunk.columns.to_pydict() == {"day": [1, 2]}
    assert [chunk.origin(row)[1] for row in range(2)] == [1, 0]


FORMATS = ["parquet", "feather", "arrows", "csv", "jsonl"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("filtered", [None, "v > 0"])
def test_rows_are_counted_even_if_no_column_is_read(
    tmp_path: Path, suffix: str, filtered: str | None
) -> None:
    for number in range(2):
        write_file(pa.table({"v": range(5)}), tmp_path / f"{number}.{suffix}")
    listing = list_input([str(tmp_path)], None)
    row_filter = parse_filter(filtered, listing.schema, "") if filtered else None
    found = [
        chunk
        for shard in make_shards(listing, None).shards
        for chunk in read_chunks(shard, listing, [], row_filter, 4, 4)
    ]
    assert sum(chunk.columns.num_rows for chunk in found) == (8 if filtered else 10)
    assert sum(chunk.filtered for chunk in found) == (2 if filtered else 0)


def test_any_files_are_rows_even_if_no_column_is_read(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    listing = list_input([str(tmp_path)], "files")
    (shard,) = make_shards(listing, None).shards
    (chunk,) = read_chunks(shard, listing, [], None, 10, 10)
    assert chunk.columns.num_rows == 3
    row_filter = parse_filter("size > 0 and path like '%b'", listing.schema, "")
    (chunk,) = read_chunks(shard, listing, ["bytes"], row_filter, 10, 10)
    assert (chunk.columns.to_pydict(), chunk.filtered) == ({"bytes": [b"b"]}, 2)
    assert chunk.origin(0) == (str(tmp_path / "b"), 0)


def write_file(table: pa.Table, path: Path) -> None:
    suffix = path.suffix[1:]
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif suffix == "feather":
        feather.write_feather(table, str(path), chunksize=3, compression="uncompressed")
    elif suffix == "arrows":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    elif suffix == "csv":
        csv.write_csv(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 12), st.integers(1, 3), st.integers(-1, 9))
def test_every_format_gives_the_same_rows(suffix: str, batch: int, batches: int, above: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number in range(3):
            write_file(
                pa.table({"w": [f"f{number}"] * 10, "v": range(10)}), Path(name) / f"{number}.{suffix}"
            )
        listing = list_input([name], None)
        row_filter = parse_filter(f"v > {above}", listing.schema, "")
        shards = make_shards(listing, row_filter)
        found = [
            chunk
            for shard in shards.shards
            for chunk in read_chunks(shard, listing, ["v", "w"], row_filter, batch, batch * batches)
        ]
        wanted = [(v, f"f{number}") for number in range(3) for v in range(10) if v > above]
        rows = [tuple(row.values()) for chunk in found for row in chunk.columns.to_pylist()]
        assert rows == wanted
        origins = [chunk.origin(row) for chunk in found for row in range(chunk.columns.num_rows)]
        assert origins == [(f"{name}/{word[1:]}.{suffix}", v) for v, word in wanted]
        assert sum(chunk.filtered for chunk in found) + shards.pruned_rows == 30 - len(wanted)


def test_files_may_differ_in_what_they_say_beside_types(tmp_path: Path) -> None:
    """One file's column may be null, another's not; field ids and pandas' notes differ."""
    firm = pa.schema([pa.field("v", pa.int64(), nullable=False, metadata={"id": "1"})], {"pandas": "{}"})
    pq.write_table(pa.table({"v": [1, 2]}, schema=firm), tmp_path / "1.parquet")
    pq.write_table(pa.table({"v": [None, 4]}), tmp_path / "2.parquet")
    listing = list_input([str(tmp_path)], None)
    assert listing.schema.field("v").nullable
    (chunk,) = chunks(listing, make_shards(listing, None), None, 10, 10)
    assert chunk.columns["v"].to_pylist() == [1, 2, None, 4]


# What is broken, or not what the plan saw


def test_a_file_that_grew_since_the_plan_is_refused(tmp_path: Path) -> None:
    listing = write(tmp_path, [(10, 10)])
    shards = make_shards(listing, None)
    pq.write_table(pa.table({"v": range(12)}), tmp_path / "f0.parquet")
    with pytest.raises(InputError, match="changed since the plan"):
        chunks(listing, shards, None, 4, 4)


def test_a_file_that_went_away_since_the_plan_is_named(tmp_path: Path) -> None:
    listing = write(tmp_path, [(10, 10)])
    shards = make_shards(listing, None)
    (tmp_path / "f0.parquet").unlink()
    with pytest.raises(InputError, match="isn't there"):
        chunks(listing, shards, None, 4, 4)


REWRITTEN = {
    "more rows": pa.table({"v": range(12)}),
    "no such column": pa.table({"w": range(10)}),
    "another type": pa.table({"v": ["x"] * 10}),
    "no rows": pa.table({"v": pa.array([], pa.int64())}),
}


@pytest.mark.parametrize("table", REWRITTEN.values(), ids=REWRITTEN)
@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_file_written_again_is_refused_even_if_its_time_says_nothing(
    tmp_path: Path, table: pa.Table, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_file(pa.table({"v": range(10)}), path)
    listing, before = list_input([str(tmp_path)], None), path.stat().st_mtime_ns
    shards = make_shards(listing, None)
    write_file(table, path)
    os.utime(path, ns=(before, before))
    with pytest.raises(InputError) as caught:
        chunks(listing, shards, None, 4, 4)
    assert caught.value.problems[0].facts["file"] == str(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_with_other_values_is_told_by_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_file(pa.table({"v": range(10)}), path)
    listing, before = list_input([str(tmp_path)], None), path.stat().st_mtime_ns
    shards = make_shards(listing, None)
    write_file(pa.table({"v": range(9, -1, -1)}), path)
    os.utime(path, ns=(before + 1, before + 1))
    with pytest.raises(InputError, match="changed since the plan"):
        chunks(listing, shards, None, 4, 4)


@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_page_damaged_on_disk_is_named_by_file_and_row_group(tmp_path: Path, group: int) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"v": np.random.default_rng(0).integers(0, 1 << 60, 3000)})
    pq.write_table(table, path, row_group_size=1000, write_page_checksum=True, use_dictionary=False)
    listing = list_input([str(tmp_path)], None)
    shards = make_shards(listing, None)
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    with pytest.raises(InputError) as caught:
        chunks(listing, shards, None, 4, 4)
    facts = caught.value.problems[0].facts
    assert (facts["file"], facts["row group"]) == (str(path), str(group))


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_file_cut_short_since_the_plan_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_file(pa.table({"v": range(1000)}), path)
    listing, before = list_input([str(tmp_path)], None), path.stat().st_mtime_ns
    shards = make_shards(listing, None)
    os.truncate(path, path.stat().st_size // 2)
    os.utime(path, ns=(before, before))
    with pytest.raises(InputError) as caught:
        chunks(listing, shards, None, 4, 4)
    assert caught.value.problems[0].facts["file"] == str(path)


def test_shards_do_not_depend_on_anything_but_the_listing(tmp_path: Path) -> None:
    listing = write(tmp_path, [(100, 10), (7, 3)])
    assert make_shards(listing, None) == make_shards(listing, None)
