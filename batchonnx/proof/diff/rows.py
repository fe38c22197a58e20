"""The rows of two results, by what tells them apart: joined piece by piece, on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.errors import InputError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit, Manifest, PlanRecord
from batchonnx.planning.listing import Listing
from batchonnx.proof.diff.columns import ColumnTally
from batchonnx.proof.diff.spill import read_back, spill
from batchonnx.proof.origin import predicted_rows
from batchonnx.proof.published import read_rows, row_schema, rows_of_shard
from batchonnx.proof.recorded import recorded_listing
from batchonnx.scoring.quarantine import FILE, ROW

PIECE_BYTES = 64 << 20
"""About what is joined at a time: of both results together, in memory."""

MOST_PIECES = 100
UNPACKED = 4
"""How much more room rows take in memory than in their parts, roughly."""


@dataclass(frozen=True)
class Read:
    """A result and its records."""

    output: Output
    plan: PlanRecord
    manifest: Manifest

    @property
    def schema(self) -> pa.Schema:
        """Its columns. Raises InputError where its records don't tell."""
        schema = row_schema(self.manifest.layout)
        if schema is None:
            facts = {"output": self.output.path, "found": "records of format 2, without a schema"}
            fix = "score again with this batchonnx"
            raise InputError(Problem("the result doesn't say what its columns are", facts, fix))
        return schema


@dataclass(frozen=True)
class Joined:
    """Rows of two results. both, only_a, only_b: predicted ones.

    newly_bad: rows that a predicted and b put aside; no_longer_bad: the other way round.
    """

    both: int
    only_a: int
    only_b: int
    newly_bad: int
    no_longer_bad: int


@dataclass(frozen=True)
class Key:
    """What tells rows apart. column: None for file and place in it. kind: what it is compared as."""

    column: str | None
    kind: pa.DataType

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return (FILE, ROW) if self.column is None else (self.column,)


def join_rows(a: Read, b: Read, key: Key, tallies: Sequence[ColumnTally]) -> Joined:
    """Hand the values of each row that both have to the tallies. Raises as `diff.diff_results`."""
    size = sum(part.bytes for one in (a, b) for commit in one.manifest.commits for part in commit.parts)
    pieces = max(1, min(MOST_PIECES, ceil(size * UNPACKED / PIECE_BYTES)))
    names = [tally.column for tally in tallies]
    spilled = []
    counts = np.zeros(5, np.int64)
    with tempfile.TemporaryDirectory(prefix="batchonnx-diff-") as folder:
        for number, side in enumerate((a, b)):
            for kind, rows in (("rows", _predicted(side, key, names)), ("bad", _bad(side, key))):
                place = Path(folder) / f"{kind}-{number}"
                place.mkdir()
                spilled.append(spill(rows, key.columns, place, pieces))
        for rows_a, bad_a, rows_b, bad_b in zip(*spilled, strict=True):
            left, right = read_back(rows_a), read_back(rows_b)
            for table, side in ((left, a), (right, b)):
                if table is not None:
                    _require_distinct(table, key, side.output.path)
            there, here = _pairs(left, right, key)
            if left is not None and right is not None and len(there):
                told = _told(left.take(there), key)
                for tally in tallies:
                    tally.add(left[tally.column].take(there), right[tally.column].take(here), told)
            counts += (
                len(there),
                (left.num_rows if left is not None else 0) - len(there),
                (right.num_rows if right is not None else 0) - len(there),
                len(_pairs(left, read_back(bad_b), key)[0]),
                len(_pairs(read_back(bad_a), right, key)[1]),
            )
    return Joined(*map(int, counts))


def _pairs(left: pa.Table | None, right: pa.Table | None, key: Key) -> tuple[pa.Array, pa.Array]:
    """Places of the rows of two tables that have the same key, in the left one's order."""
    if left is None or right is None:
        return pa.array([], pa.int64()), pa.array([], pa.int64())
    a = left.select(list(key.columns)).append_column("a", pa.array(np.arange(left.num_rows)))
    b = right.select(list(key.columns)).append_column("b", pa.array(np.arange(right.num_rows)))
    joined = a.join(b, list(key.columns), join_type="inner").sort_by("a")
    return joined["a"].combine_chunks(), joined["b"].combine_chunks()


def _predicted(side: Read, key: Key, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Key and predictions of each row."""
    asks_filter = key.column is None and any(commit.filtered for commit in side.manifest.commits)
    listing = recorded_listing(side.plan) if asks_filter else None
    for commit in side.manifest.commits:
        if key.column is None:
            yield from _with_origins(side, commit, names, listing)
            continue
        for batch in read_rows(side.output, side.manifest.layout, commit, [*key.columns, *names]):
            yield _comparable(batch, key)


def _with_origins(
    side: Read, commit: Commit, names: Sequence[str], listing: Listing | None
) -> Iterator[pa.RecordBatch]:
    if not commit.predicted:
        return
    table = rows_of_shard(side.output, side.manifest.layout, commit, 0, commit.predicted).select(list(names))
    done = 0
    for path, rows in predicted_rows(side.output, side.plan, commit, listing):
        origin = {FILE: pa.array([path] * len(rows), pa.large_string()), ROW: pa.array(rows, pa.int64())}
        part = table.slice(done, len(rows))
        done += len(rows)
        columns = {**origin, **{name: part[name] for name in names}}
        yield from pa.table(columns).combine_chunks().to_batches()


def _bad(side: Read, key: Key) -> Iterator[pa.RecordBatch]:
    """Keys of the rows in quarantine; none where that doesn't hold the key."""
    for commit in side.manifest.commits:
        if commit.quarantine is None:
            continue
        with side.output.open(commit.quarantine.path) as source, pq.ParquetFile(source) as file:
            if set(key.columns) <= set(file.schema_arrow.names):
                for batch in file.iter_batches(columns=list(key.columns)):
                    yield _comparable(batch, key)


def _comparable(batch: pa.RecordBatch, key: Key) -> pa.RecordBatch:
    """With the key as both results' are compared."""
    for name in key.columns:
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = key.kind if key.column is not None or name == ROW else pa.large_string()
        batch = batch.set_column(batch.schema.get_field_index(name), name, column.cast(kind))
    return batch


def _require_distinct(table: pa.Table, key: Key, path: str) -> None:
    counted = table.group_by(list(key.columns)).aggregate([([], "count_all")])
    if counted.num_rows == table.num_rows:
        return
    often = counted.sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()[0]
    facts = {"output": path, "key": ", ".join(key.columns)}
    facts["found"] = f"{often[key.columns[-1]]} in {often['count_all']:,} rows"
    fix = "name a kept column that tells rows apart: --key COLUMN; or leave it out to join by file and row"
    raise InputError(Problem("the key doesn't tell rows apart", facts, fix))


def _told(table: pa.Table, key: Key) -> pa.Array:
    """What names each row, for people."""
    if key.column is not None:
        return table[key.column].cast(pa.large_string()).combine_chunks()
    paths, rows = (table[name].to_pylist() for name in key.columns)
    told = [f"row {row:,} of {path}" for path, row in zip(paths, rows, strict=True)]
    return pa.array(told, pa.large_string())
