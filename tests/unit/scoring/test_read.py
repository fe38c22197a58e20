"""Every row once, in order, from where it is said to come; batches that follow from the plan alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchonnx.errors import InputError
from batchonnx.planning import shards as shards_module
from batchonnx.planning.filter import parse_filter
from batchonnx.planning.listing import Listing, list_input
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
    assert len({shard.part for shard in shards}) == len(shards)


def test_large_row_groups_are_not_copied_and_small_ones_are_joined(tmp_path: Path) -> None:
    listing = write(tmp_path, [(100, 100), (3, 3), (4, 4), (100, 100)])
    found = chunks(listing, make_shards(listing, None), None, 10, 50)
    assert [chunk.columns.num_rows for chunk in found] == [50, 50, 7, 50, 50]
    assert [len(chunk.segments) for chunk in found] == [1, 1, 2, 1, 1]


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


def test_statistics_prune_row_groups_and_their_rows_are_counted(tmp_path: Path) -> None:
    listing = write(tmp_path, [(100, 10)])
    shards = make_shards(listing, parse_filter("v >= 95", listing.schema, ""))
    assert shards.pruned_rows == 90
    assert [s.first_row for shard in shards.shards for s in shard.sources] == [90]


def test_shards_do_not_depend_on_anything_but_the_listing(tmp_path: Path) -> None:
    listing = write(tmp_path, [(100, 10), (7, 3)])
    assert make_shards(listing, None) == make_shards(listing, None)
