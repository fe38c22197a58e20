"""A sample is rows of the plan's own shards, none twice, and all others count as left out."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx import api
from batchonnx.job.load import job_from_dict
from batchonnx.planning.plan import Plan
from batchonnx.planning.sample import Sample, take_sample
from batchonnx.scoring.read import begin_reading
from tests import models

COLUMNS = ["a", "b", "c"]


def plan_of(folder: Path, files: list[int], group: int) -> Plan:
    """Files of so many rows, in row groups of `group`; row n of all holds n."""
    models.linear(folder / "model.onnx")
    first = 0
    for number, rows in enumerate(files):
        values = np.arange(first, first + rows, dtype=np.float32)
        table = pa.table(dict.fromkeys(COLUMNS, values))
        pq.write_table(table, folder / f"in-{number:02}.parquet", row_group_size=group)
        first += rows
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in-*.parquet"},
        "features": {"x": {"columns": COLUMNS}},
        "output": {"path": "out"},
    }
    plan = api.plan(job_from_dict(job, folder))
    # As many shards as row groups, which a small input would be gathered from.
    shards = [
        dataclasses.replace(shard, number=0, sources=(source,), rows=source.rows)
        for shard in plan.shards
        for source in shard.sources
    ]
    numbered = tuple(dataclasses.replace(shard, number=number) for number, shard in enumerate(shards))
    return dataclasses.replace(plan, shards=numbered)


@settings(max_examples=40, deadline=None)
@given(
    files=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    group=st.integers(1, 50),
    pieces=st.integers(1, 30),
    rows=st.none() | st.integers(1, 50),
)
def test_a_sample_reads_its_own_rows_each_once(
    files: list[int], group: int, pieces: int, rows: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), files, group)
        taken = take_sample(plan, Sample(pieces, rows))
        read = [
            value
            for shard in taken.shards
            for chunk in begin_reading(taken, shard).chunks(1)
            for value in chunk.columns["a"].to_pylist()
        ]
    assert len(set(read)) == len(read) == taken.rows
    assert taken.rows + taken.pruned_rows == sum(files)
    assert len(taken.shards) <= pieces
    assert rows is None or all(shard.rows <= rows for shard in taken.shards)
    assert [shard.number for shard in taken.shards] == list(range(len(taken.shards)))
    if rows is None and pieces >= len(plan.shards):
        assert taken.rows == sum(files)
