"""The rows on their way through a worker, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import pyarrow as pa

from batchonnx.scoring.pick import take

Others = Callable[[], Iterable[tuple[int, str]]]
"""Rows and why they are bad, told on demand."""


@dataclass(frozen=True)
class Segment:
    """`rows` neighbouring rows of a chunk that come from one file.

    path: the file. first_row: index in the file of the first of them.
    index: int64[rows], each row's index in the file, where a filter left gaps; else None.
    """

    path: str
    first_row: int
    rows: int
    index: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """int64[rows]: each row's index in the file."""
        return self.index if self.index is not None else np.arange(self.first_row, self.first_row + self.rows)


@dataclass(frozen=True)
class Chunk:
    """Rows that are read, encoded and written together: a whole number of batches, but for
    the end of a row group.

    segments: where the rows came from, in order; their rows sum to `columns.num_rows`.
    filtered: rows that the filter left out on the way to this chunk.
    """

    columns: pa.RecordBatch
    segments: tuple[Segment, ...]
    filtered: int = 0

    def origin(self, row: int) -> tuple[str, int]:
        """File and row index in it, of a row of this chunk."""
        for segment in self.segments:
            if row < segment.rows:
                return segment.path, int(
                    segment.index[row] if segment.index is not None else segment.first_row + row
                )
            row -= segment.rows
        raise IndexError(row)

    def with_columns(self, columns: pa.RecordBatch) -> Chunk:
        """The same rows with other columns."""
        return Chunk(columns, self.segments, self.filtered)

    def take(self, places: np.ndarray) -> Chunk:
        """Rows in another order, copied. places: int64[n]."""
        begins = np.cumsum([0, *(segment.rows for segment in self.segments)])
        owners = np.searchsorted(begins, places, "right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(places)]
        segments = []
        for first, stop in pairwise(cuts):
            if first == stop:
                continue
            segment, begin = self.segments[owners[first]], begins[owners[first]]
            index = segment.places[places[first:stop] - begin]
            segments.append(Segment(segment.path, int(index[0]), stop - first, index))
        return Chunk(take(self.columns, places), tuple(segments))

    def repeated(self, rows: int) -> Chunk:
        """So many rows, some of them several times if there aren't as many: a filter may leave few."""
        times = ceil(rows / self.columns.num_rows)
        if times == 1:
            return self.slice(0, rows)
        return Chunk(pa.concat_batches([self.columns] * times), self.segments * times).slice(0, rows)

    def slice(self, start: int, rows: int) -> Chunk:
        """Some of the rows, viewed; `filtered` stays with the whole."""
        segments = []
        first = 0
        for segment in self.segments:
            low, high = max(start - first, 0), min(start + rows - first, segment.rows)
            if low < high:
                index = segment.index[low:high] if segment.index is not None else None
                place = int(index[0]) if index is not None else segment.first_row + low
                segments.append(Segment(segment.path, place, high - low, index))
            first += segment.rows
        return Chunk(self.columns.slice(start, rows), tuple(segments))


class BadRow(Exception):
    """A row that can't be encoded: raised by encoders, who know the row but not its file.

    row: index in the chunk. column: the column at fault. reason: what was expected and found.
    others: rows behind it that the same look has found, with their reasons; asked for only where bad
    rows are told apart.
    """

    def __init__(self, row: int, column: str, reason: str, others: Others = tuple) -> None:
        super().__init__(row, column, reason)
        self.row, self.column, self.reason, self._others = row, column, reason, others

    def __reduce__(self) -> tuple[Callable[..., BadRow], tuple[object, ...]]:
        """For another process: with the others told."""
        return _bad_row, (self.row, self.column, self.reason, tuple(self._others()))

    def each(self) -> Iterator[BadRow]:
        """This row and the others, each once, without others of its own."""
        reasons = {self.row: self.reason}
        for row, reason in self._others():
            reasons.setdefault(row, reason)
        for row, reason in reasons.items():
            yield BadRow(row, self.column, reason)

    def moved(self, start: int) -> BadRow:
        """The same for rows that begin at `start`."""

        def others() -> Iterator[tuple[int, str]]:
            return ((start + row, reason) for row, reason in self._others())

        return BadRow(start + self.row, self.column, self.reason, others)


def _bad_row(row: int, column: str, reason: str, others: tuple[tuple[int, str], ...]) -> BadRow:
    return BadRow(row, column, reason, lambda: others)
