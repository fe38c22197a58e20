"""Two results joined by file and place in it: shard after shard, as they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from batchonnx.ledger.records import Commit
from batchonnx.planning.listing import Listing
from batchonnx.proof.diff.columns import ColumnTally
from batchonnx.proof.diff.rows import Joined, Read, tally_pairs
from batchonnx.proof.origin import bad_rows, predicted_rows
from batchonnx.proof.published import rows_of_shard
from batchonnx.proof.recorded import recorded_listing

KEPT = 2
"""Shards of the other result that stay in memory: where both were dealt out alike, each is read once."""

Rows = Mapping[str, np.ndarray]
"""Path -> int64[n] rows of that file."""


def join_by_row(a: Read, b: Read, tallies: Sequence[ColumnTally]) -> Joined:
    """Hand the values of each row that both have to the tallies; in memory: one shard of a, KEPT of b.

    Raises StorageError, OSError, ArrowException; ChangedError where a filter has to be asked again and the
    input has changed.
    """
    names = [tally.column for tally in tallies]
    first, second = _Shards(a, names), _Shards(b, names)
    load = lru_cache(KEPT)(second.load)
    both = newly_bad = no_longer_bad = 0
    for place, commit in enumerate(a.manifest.commits):
        mine = first.load(place)
        for other in second.with_rows_of(commit):
            theirs = load(other)
            both += _compare(mine, theirs, tallies)
            newly_bad += _shared(mine.rows, theirs.bad)
            no_longer_bad += _shared(theirs.rows, mine.bad)
    return Joined(both, a.predicted - both, b.predicted - both, newly_bad, no_longer_bad)


@dataclass(frozen=True)
class _Shard:
    """table: predictions. rows: that were predicted; places: of each in the table. bad: in quarantine."""

    table: pa.Table
    rows: Rows
    places: Rows
    bad: Rows


class _Shards:
    """A result's shards by their place among its commits."""

    def __init__(self, read: Read, names: Sequence[str]) -> None:
        self._read, self._names = read, names
        commits = read.manifest.commits
        # Asked for once: of a filter's survivors only the input itself knows.
        self._listing: Listing | None = None
        if any(commit.filtered for commit in commits):
            self._listing = recorded_listing(read.plan)
        self._having: dict[str, list[tuple[int, int, int]]] = {}
        for place, commit in enumerate(commits):
            for source in commit.sources:
                end = source.first_row + source.rows
                self._having.setdefault(source.path, []).append((source.first_row, end, place))

    def with_rows_of(self, commit: Commit) -> Iterator[int]:
        """Shards that have rows of the same files, from the same places on."""
        found = {
            place
            for source in commit.sources
            for begin, end, place in self._having.get(source.path, ())
            if begin < source.first_row + source.rows and source.first_row < end
        }
        yield from sorted(found)

    def load(self, place: int) -> _Shard:
        """Read a shard. Raises as `join_by_row`."""
        read = self._read
        commit = read.manifest.commits[place]
        rows: dict[str, list[np.ndarray]] = {}
        places: dict[str, list[np.ndarray]] = {}
        done = 0
        for path, found in predicted_rows(read.output, read.plan, commit, self._listing):
            rows.setdefault(path, []).append(found)
            places.setdefault(path, []).append(np.arange(done, done + len(found)))
            done += len(found)
        if commit.predicted and self._names:
            table = rows_of_shard(read.output, read.manifest.layout, commit, 0, commit.predicted, self._names)
        else:
            table = pa.table({name: pa.array([], read.schema.field(name).type) for name in self._names})
        return _Shard(table, _joined(rows), _joined(places), bad_rows(read.output, commit))


def _compare(mine: _Shard, theirs: _Shard, tallies: Sequence[ColumnTally]) -> int:
    """How many rows both shards have; all files' together, of which there may be one for each row."""
    here, there, rows, paths = list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), list[str]()
    for path in mine.rows:
        if path in theirs.rows:
            found, ours, others = np.intersect1d(
                mine.rows[path], theirs.rows[path], assume_unique=True, return_indices=True
            )
            here.append(mine.places[path][ours])
            there.append(theirs.places[path][others])
            rows.append(found)
            paths.append(path)
    ends = np.cumsum([len(found) for found in rows])
    numbers = _flat(rows)

    def name(pair: int) -> str:
        path = paths[int(np.searchsorted(ends, pair, side="right"))]
        return f"row {numbers[pair]:,} of {path}"

    tally_pairs(mine.table, theirs.table, _flat(here), _flat(there), tallies, name)
    return len(numbers)


def _flat(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *parts])


def _shared(rows: Rows, others: Rows) -> int:
    """How many rows are in both."""
    return sum(int(np.isin(rows[path], others[path]).sum()) for path in rows.keys() & others.keys())


def _joined(parts: Mapping[str, list[np.ndarray]]) -> Rows:
    return {path: _flat(found) for path, found in parts.items()}
