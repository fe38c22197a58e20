"""Two results joined by a kept column: dealt out to files by it, then piece after piece."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from batchonnx.errors import InputError, Problem
from batchonnx.proof.diff.columns import ColumnTally
from batchonnx.proof.diff.rows import Joined, Read, tally_pairs
from batchonnx.proof.diff.spill import read_back, spill
from batchonnx.proof.published import read_rows

PIECE_BYTES = 32 << 20
"""About what is joined at a time: of both results together, in memory."""

MOST_PIECES = 500
"""Each is an open file while rows are dealt out."""


def join_by_key(a: Read, b: Read, key: str, tallies: Sequence[ColumnTally]) -> Joined:
    """Hand the values of each row that both have to the tallies; rows are known by their key.

    In memory: a piece of PIECE_BYTES, or a MOST_PIECES-th of all. On disk, among temporary files: key and
    predictions of both. Raises InputError for a key that doesn't tell rows apart, StorageError, OSError,
    ArrowException.
    """
    names = [key, *(tally.column for tally in tallies)]
    kind = _kind(a, b, key)
    (rows_a, room_a), (rows_b, room_b) = (_measured(_predicted(side, names, kind), side) for side in (a, b))
    pieces = max(1, min(MOST_PIECES, ceil((room_a + room_b) / PIECE_BYTES)))
    both = newly_bad = no_longer_bad = 0
    with tempfile.TemporaryDirectory(prefix="batchonnx-diff-") as folder:
        dealt = [
            spill(rows, key, Path(folder) / name, pieces)
            for name, rows in (
                ("a", rows_a),
                ("b", rows_b),
                ("bad-a", _bad(a, key, kind)),
                ("bad-b", _bad(b, key, kind)),
            )
        ]
        for piece in zip(*dealt, strict=True):
            left, right, bad_left, bad_right = map(read_back, piece)
            codes = _codes([_keys(table, key, kind) for table in (left, right, bad_left, bad_right)])
            for side, table, numbers in ((a, left, codes[0]), (b, right, codes[1])):
                if table is not None:
                    _require_distinct(table[key], numbers, key, side.output.path)
            both += _compare(left, right, codes[0], codes[1], key, tallies)
            newly_bad += int(np.isin(codes[0], codes[3]).sum())
            no_longer_bad += int(np.isin(codes[1], codes[2]).sum())
    return Joined(both, a.predicted - both, b.predicted - both, newly_bad, no_longer_bad)


def _kind(a: Read, b: Read, key: str) -> pa.DataType:
    """What keys are compared as: integers where both are, anything else as text."""
    kinds = [side.schema.field(key).type for side in (a, b)]
    are_whole = all(pat.is_integer(kind) and kind != pa.uint64() for kind in kinds)
    return pa.int64() if are_whole else pa.large_string()


def _predicted(side: Read, names: Sequence[str], kind: pa.DataType) -> Iterator[pa.RecordBatch]:
    """Key and predictions of each row, the key first."""
    for commit in side.manifest.commits:
        for batch in read_rows(side.output, side.manifest.layout, commit, names):
            yield _comparable(batch.select(list(names)), kind)


def _bad(side: Read, key: str, kind: pa.DataType) -> Iterator[pa.RecordBatch]:
    """Keys of the rows in quarantine; none where that doesn't hold the key."""
    for commit in side.manifest.commits:
        if commit.quarantine is None:
            continue
        with side.output.open(commit.quarantine.path) as source, pq.ParquetFile(source) as file:
            if key in file.schema_arrow.names:
                for batch in file.iter_batches(columns=[key]):
                    yield _comparable(batch, kind)


def _comparable(batch: pa.RecordBatch, kind: pa.DataType) -> pa.RecordBatch:
    """With the first column, the key, as both results' are compared."""
    column = batch.column(0)
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    return batch.set_column(0, batch.schema.names[0], column.cast(kind))


def _measured(batches: Iterator[pa.RecordBatch], side: Read) -> tuple[Iterator[pa.RecordBatch], float]:
    """The same batches, and about how many bytes all of them take: as many a row as in the first one."""
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        return iter(()), 0.0
    return chain([first], batches), side.predicted * first.nbytes / first.num_rows


def _keys(table: pa.Table | None, key: str, kind: pa.DataType) -> pa.Array:
    if table is None:
        return pa.array([], kind)
    column = table[key].combine_chunks()
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)


def _codes(columns: Sequence[pa.Array]) -> list[np.ndarray]:
    """int32[rows] for each column: the same for the same value; null is one, too."""
    together = pa.concat_arrays(columns).dictionary_encode(null_encoding="encode").indices.to_numpy()
    ends = np.cumsum([len(column) for column in columns])
    return np.split(together, ends[:-1])


def _require_distinct(keys: pa.ChunkedArray, codes: np.ndarray, key: str, path: str) -> None:
    often = np.bincount(codes)
    if often.max() == 1:
        return
    most = int(often.argmax())
    facts = {"output": path, "key": key}
    facts["found"] = f"{keys[int(np.flatnonzero(codes == most)[0])]} in {often[most]:,} rows"
    fix = "name a kept column that tells rows apart: --key COLUMN; or leave it out to join by file and row"
    raise InputError(Problem("the key doesn't tell rows apart", facts, fix))


def _compare(
    left: pa.Table | None,
    right: pa.Table | None,
    codes_left: np.ndarray,
    codes_right: np.ndarray,
    key: str,
    tallies: Sequence[ColumnTally],
) -> int:
    """Rows of a piece that both results have, in the first one's order."""
    if left is None or right is None:
        return 0
    where = np.full(max(codes_left.max(), codes_right.max()) + 1, -1, np.int64)
    where[codes_right] = np.arange(len(codes_right))
    there = where[codes_left]
    here = np.flatnonzero(there >= 0)
    there = there[here]
    tally_pairs(left, right, here, there, tallies, lambda pair: str(left[key][int(here[pair])]))
    return len(here)
