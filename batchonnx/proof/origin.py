"""From a row of a part to the input row it was made of: counted from the records, no id is needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit, PlanRecord
from batchonnx.planning.filter import parse_filter
from batchonnx.planning.listing import Listing
from batchonnx.proof.recorded import recorded_job, recorded_listing, recorded_shard
from batchonnx.scoring.quarantine import FILE, ROW
from batchonnx.scoring.read import read_chunks

FILTER_ROWS = 1 << 16


def origin_of(output: Output, plan: PlanRecord, commit: Commit, place: int) -> tuple[str, int]:
    """File and row in it of a predicted row of a shard: the `place`-th of it.

    Counted from the records; where a filter left rows out, the filter is asked again.
    Raises ChangedError if that needs a file that has changed.
    """
    for path, rows in predicted_rows(output, plan, commit):
        if place < len(rows):
            return path, int(rows[place])
        place -= len(rows)
    raise IndexError(place)


def predicted_rows(
    output: Output, plan: PlanRecord, commit: Commit, listing: Listing | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Path and int64[n] row indexes in that file of a shard's predicted rows, in the order of the input.

    listing: of the run's input, for many shards; None: made here, if a filter has to be asked again.
    Raises as `origin_of`.
    """
    bad = bad_rows(output, commit)
    for path, rows in _survivors(plan, commit, listing):
        yield path, rows[~np.isin(rows, bad[path])] if path in bad else rows


def _survivors(plan: PlanRecord, commit: Commit, listing: Listing | None) -> Iterator[tuple[str, np.ndarray]]:
    """Rows that the filter has let pass, in order: path and int64[n] row indexes in that file."""
    if not commit.filtered:
        for source in commit.sources:
            yield source.path, np.arange(source.first_row, source.first_row + source.rows)
        return
    job, listing = recorded_job(plan), listing or recorded_listing(plan)
    row_filter = parse_filter(job.job.input.filter or "", listing.schema, job.where("input.filter"))
    shard = recorded_shard(plan, commit.shard, listing)
    for chunk in read_chunks(shard, listing, (), row_filter, FILTER_ROWS, FILTER_ROWS):
        yield from ((segment.path, segment.places) for segment in chunk.segments)


def bad_rows(output: Output, commit: Commit) -> dict[str, np.ndarray]:
    """Path -> int64[n] rows of the shard that are in quarantine."""
    if commit.quarantine is None:
        return {}
    with output.open(commit.quarantine.path) as source:
        table = pq.read_table(source, columns=[FILE, ROW])
    files, rows = table.column(FILE).to_pylist(), table.column(ROW).to_numpy()
    return {file: rows[np.array([one == file for one in files])] for file in {*files}}
