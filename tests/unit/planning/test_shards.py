"""Shards hold every row group once, in order; what is pruned has no row that the filter wants."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.errors import InputError
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.planning import shards as shards_module
from batchonnx.planning.filter import Filter, parse_filter
from batchonnx.planning.listing import Listing, SourceFile, list_input
from batchonnx.planning.shards import LARGEST_BYTES, MOST_SOURCES, SMALLEST_BYTES, Shard, make_shards
from tests.conditions import ROWS, SCHEMA, Row, conditions

EMPTY = pa.schema([("a", pa.int64())])

MIB = 1 << 20

Groups = list[list[tuple[int | None, int]]]
"""(rows, bytes) of each row group of each file."""


def listing_of(files: Sequence[Sequence[tuple[int | None, int]]]) -> Listing:
    """A listing by hand: (rows, bytes) of each row group of each file."""
    footers = [Footer(EMPTY, tuple(RowGroup(*group) for group in groups)) for groups in files]
    entries = [SourceFile(f"/{i}.parquet", 1, "", footer, {}) for i, footer in enumerate(footers)]
    return Listing("parquet", tuple(entries), EMPTY)


def groups_of(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """(file, row group) in the order of reading."""
    return [
        (source.file, group) for shard in shards for source in shard.sources for group in source.row_groups
    ]


def wanted_by(text: str, listing: Listing) -> Filter:
    return parse_filter(text, listing.schema, "")


# Gathering

row_groups = st.tuples(st.none() | st.integers(0, 50), st.integers(0, 3 * MIB))


@given(st.lists(st.lists(row_groups, max_size=6), max_size=12))
def test_every_row_group_with_rows_is_in_one_shard_in_order(
    files: Groups,
) -> None:
    listing = listing_of(files)
    shards = make_shards(listing, None).shards
    wanted = [
        (number, group)
        for number, groups in enumerate(files)
        for group, (rows, _) in enumerate(groups)
        # Where one length is unknown, all of the file is read from its beginning.
        if rows != 0 or any(other is None for other, _ in groups)
    ]
    assert groups_of(shards) == wanted
    assert all(source.rows != 0 for shard in shards for source in shard.sources)
    assert all(shard.sources for shard in shards) or (len(shards) == 1 and not wanted)


@given(st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3 * MIB)), max_size=6), max_size=12))
def test_rows_and_first_rows_of_sources_add_up(files: Groups) -> None:
    shards = make_shards(listing_of(files), None).shards
    assert sum(shard.rows or 0 for shard in shards) == sum(
        rows or 0 for groups in files for rows, _ in groups
    )
    for shard in shards:
        assert shard.rows == sum(source.rows or 0 for source in shard.sources)
        for source in shard.sources:
            assert source.first_row == sum(
                rows or 0 for rows, _ in files[source.file][: source.row_groups[0]]
            )


@given(st.lists(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9 * MIB)), max_size=9), max_size=40))
def test_a_shard_is_about_a_64th_of_the_input_within_limits(
    files: Groups,
) -> None:
    shards = make_shards(listing_of(files), None).shards
    total = sum(size for groups in files for _, size in groups)
    target = min(max(total // 64, SMALLEST_BYTES), LARGEST_BYTES)
    for shard in shards:
        alone = len(shard.sources) == 1 and len(shard.sources[0].row_groups) == 1
        assert shard.bytes <= target or alone
    for shard, following in pairwise(shards):
        first = following.sources[0]
        assert shard.bytes + files[first.file][first.row_groups[0]][1] > target


def test_many_small_files_share_a_shard_but_not_beyond_all_bounds() -> None:
    shards = make_shards(listing_of([[(1, 10)]] * (MOST_SOURCES + 1)), None).shards
    assert [len(shard.sources) for shard in shards] == [MOST_SOURCES, 1]


def test_one_huge_file_is_many_shards_and_its_neighbouring_row_groups_one_source() -> None:
    shards = make_shards(listing_of([[(1000, 64 * MIB)] * 200]), None).shards
    assert len(shards) == 100
    assert {len(shard.sources) for shard in shards} == {1}
    assert shards[1].sources[0] == shards_module.Source(0, (2, 3), 2000, 2000)


@pytest.mark.parametrize("files", [[], [[]], [[(0, 10)]], [[], [(0, 0), (0, 5)]]])
def test_an_input_without_rows_has_a_shard_without_sources(files: Groups) -> None:
    """Its part tells readers the schema."""
    (shard,) = make_shards(listing_of(files), None).shards
    assert (shard.sources, shard.rows) == ((), 0)


def test_a_file_whose_rows_are_unknown_makes_the_shards_rows_unknown() -> None:
    (shard,) = make_shards(listing_of([[(5, 10)], [(None, 10)]]), None).shards
    assert shard.rows is None
    assert [source.rows for source in shard.sources] == [5, None]


# Pruning


def write_lake(folder: Path, rows: list[Row], group_rows: int) -> Listing:
    """Rows in Hive folders `part=…`, three row groups a file, with statistics."""
    for number, first in enumerate(range(0, len(rows), 3 * group_rows)):
        path = folder / f"part={['x', '__HIVE_DEFAULT_PARTITION__', 'z'][number % 3]}" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows[first : first + 3 * group_rows], SCHEMA)
        pq.write_table(table, path, row_group_size=group_rows)
    return list_input([str(folder)], None)


@st.composite
def beside_partitions(draw: st.DrawFn) -> str:
    """A random filter, alone or beside a claim of the partition."""
    text, _ = draw(conditions())
    claim = draw(st.sampled_from(["", "part = 'x'", "part is null", "part != 'z'", "part in ('x', 'y')"]))
    if not claim:
        return text
    return draw(st.sampled_from(["({0}) and {1}", "{1} or ({0})", "not ({0} and {1})"])).format(text, claim)


@settings(max_examples=300, deadline=None)
@given(ROWS.filter(bool), st.integers(1, 3), beside_partitions())
def test_no_row_that_the_filter_wants_is_pruned(rows: list[Row], group_rows: int, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        listing = write_lake(Path(name), rows, group_rows)
        row_filter = wanted_by(text, listing)
        found = make_shards(listing, row_filter)
        left = set(groups_of(found.shards))
        pruned = 0
        for number, file in enumerate(listing.files):
            parquet = pq.ParquetFile(file.path)
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group)
                if (number, group) in left:
                    continue
                pruned += len(table)
                part = pa.array([file.partition["part"]] * len(table), pa.string())
                assert table.append_column("part", part).filter(row_filter.expression).num_rows == 0
        assert found.pruned_rows == pruned


def test_statistics_that_arrow_cannot_compare_prune_nothing(tmp_path: Path) -> None:
    """A row group of one integer that no float64 holds, beside a column of floats."""
    wide = pa.array([2**53 + 1, None], pa.uint64())
    cents = pa.array([Decimal(-1), Decimal(-1)], pa.decimal128(5, 2))
    pq.write_table(pa.table({"u64": wide, "cents": cents}), tmp_path / "t.parquet")
    listing = list_input([str(tmp_path)], None)
    found = make_shards(listing, wanted_by("(0 != cents) and (u64 < cents)", listing))
    assert groups_of(found.shards) == [(0, 0)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("v >= 95", [9]),
        ("v > 94.5 and v < 1000", [9]),
        ("not v < 95", [9]),
        ("v in (5, 95)", [0, 9]),
        ("v between 39 and 40", [3, 4]),
        ("v = -1 or v = 7", [0]),
        ("v > 1000", []),
        ("v = 9.5", []),
        ("v < 99999999999999999999", list(range(10))),
        ("price > 94", [9]),
        ("price <= 9.05", [0]),
        ("price in (9, 10)", [0, 1]),
        ("not price > 5", list(range(10))),
        ("price != 5", list(range(10))),
        ("word = 'w95'", [9]),
        ("nothing is null", [5]),
        ("nothing is not null and v < 65", [0, 1, 2, 3, 4, 6]),
        ("day > '2020-01-05'", [5, 6, 7, 8, 9]),
    ],
)
def test_statistics_prune_row_groups(tmp_path: Path, text: str, left: list[int]) -> None:
    columns = {
        "v": range(100),
        "price": [float(v) for v in range(100)],
        "word": [f"w{v:02}" for v in range(100)],
        "nothing": [None if 50 <= v < 60 else v for v in range(100)],
        "day": [datetime.date(2020, 1, 1 + v // 10) for v in range(100)],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=10)
    listing = list_input([str(tmp_path)], None)
    found = make_shards(listing, wanted_by(text, listing))
    assert [group for _, group in groups_of(found.shards)] == left
    assert found.pruned_rows == 100 - 10 * len(left)


@pytest.mark.parametrize("text", ["not x < 5", "x != 1", "not x = 1", "x not in (1, 2)", "not (x >= 0)"])
def test_statistics_which_leave_out_nan_do_not_prune_it(tmp_path: Path, text: str) -> None:
    pq.write_table(pa.table({"x": [1.0, float("nan")]}), tmp_path / "a.parquet")
    listing = list_input([str(tmp_path)], None)
    assert groups_of(make_shards(listing, wanted_by(text, listing)).shards) == [(0, 0)]


def test_a_file_without_statistics_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": range(10)}), tmp_path / "a.parquet", write_statistics=False)
    listing = list_input([str(tmp_path)], None)
    assert make_shards(listing, wanted_by("v > 100", listing)).pruned_rows == 0


def partitioned(folder: Path, suffix: str) -> Listing:
    """Four files of 10 rows, in day=1, day=2, day=3 and the null folder."""
    table = pa.table({"v": range(10)})
    for day in ("1", "2", "3", "__HIVE_DEFAULT_PARTITION__"):
        path = folder / f"day={day}" / f"a.{suffix}"
        path.parent.mkdir()
        if suffix == "parquet":
            pq.write_table(table, path)
        elif suffix == "arrow":
            feather.write_feather(table, str(path), compression="zstd")
        elif suffix == "arrows":
            with ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table)
        else:
            path.write_text("v\n" + "".join(f"{v}\n" for v in range(10)))
    return list_input([str(folder)], None)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("day = 2", [1]),
        ("day > 1 and v >= 0", [1, 2]),
        ("day in (1, 3) or day is null", [0, 2, 3]),
        ("not day = 1", [1, 2]),
        ("day = 2 or v = 5", [0, 1, 2, 3]),
        ("day > 3", []),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_folders_that_cannot_match_are_left_out(
    tmp_path: Path, suffix: str, text: str, left: list[int]
) -> None:
    listing = partitioned(tmp_path, suffix)
    found = make_shards(listing, wanted_by(text, listing))
    assert [file for file, _ in groups_of(found.shards)] == left
    assert found.pruned_rows == 40 - 10 * len(left)


@pytest.mark.parametrize("suffix", ["csv", "arrows"])
def test_files_whose_rows_nobody_has_counted_are_read_and_filtered(tmp_path: Path, suffix: str) -> None:
    listing = partitioned(tmp_path, suffix)
    found = make_shards(listing, wanted_by("day = 2", listing))
    assert [file for file, _ in groups_of(found.shards)] == [0, 1, 2, 3]
    assert found.pruned_rows == 0


def test_folders_of_any_files_are_left_out_too(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "x.bin").write_bytes(b"1")
    listing = list_input([str(tmp_path)], "files")
    assert make_shards(listing, wanted_by("path like '%/a/%'", listing)).pruned_rows == 0


def test_a_column_that_the_filter_does_not_read_may_differ_between_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [1], "other": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"other": ["x"], "v": [2]}), tmp_path / "2.parquet")
    listing = list_input([str(tmp_path)], None)
    assert groups_of(make_shards(listing, wanted_by("v > 1", listing)).shards) == [(1, 0)]


def test_a_file_that_went_away_after_it_was_listed_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [1]}), tmp_path / "1.parquet")
    listing = list_input([str(tmp_path)], None)
    (tmp_path / "1.parquet").unlink()
    with pytest.raises(InputError) as caught:
        make_shards(listing, wanted_by("v > 1", listing))
    assert caught.value.problems[0].facts["path"] == str(tmp_path / "1.parquet")


def test_pruned_rows_do_not_shift_those_that_are_left(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [*range(50), *range(50)]}), tmp_path / "1.parquet", row_group_size=10)
    listing = list_input([str(tmp_path)], None)
    (shard,) = make_shards(listing, wanted_by("v between 20 and 29", listing)).shards
    assert [(s.row_groups, s.first_row, s.rows) for s in shard.sources] == [((2,), 20, 10), ((7,), 70, 10)]
