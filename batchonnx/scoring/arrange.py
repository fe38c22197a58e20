"""How rows become batches: in their own order, or, where they are texts, by the number of their tokens.

Whatever the order of work, results come out in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from batchonnx.planning.bindings import TextColumn
from batchonnx.planning.lattice import Cut, cut_batches, rows_of, windows
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.encode.tokens import token_counts, with_tokens


@dataclass(frozen=True)
class Piece:
    """Rows in the order of work. cuts: where its batches end, and as how many rows each is fed."""

    chunk: Chunk
    cuts: Sequence[Cut]

    def part(self, first: int, last: int) -> Piece:
        """Some of the batches."""
        begin = self.cuts[first - 1][0] if first else 0
        cuts = [(stop - begin, fed) for stop, fed in self.cuts[first:last]]
        return Piece(self.chunk.slice(begin, cuts[-1][0] if cuts else 0), cuts)


@dataclass(frozen=True)
class Arranged:
    """Rows that are scored together, and the way back to their own order.

    window: the rows as they were read. order: the row of the window in each place of the piece; None: each in
    its own. bad: rows of the window that are in no batch.
    """

    window: Chunk
    piece: Piece
    order: np.ndarray | None = None
    bad: Mapping[int, BadRow] = field(default_factory=dict)


class InOrder:
    """Rows as they come. batch_rows: in one call. fixed: what the model takes, no more and no fewer."""

    def __init__(self, batch_rows: int, fixed: int | None) -> None:
        self._size, self._fixed = batch_rows, fixed

    def arrange(self, chunk: Chunk) -> Iterator[Arranged]:
        """All of the chunk at once."""
        rows, size, fixed = chunk.columns.num_rows, self._size, self._fixed
        cuts = [(stop, fixed or size) for stop in range(size, rows + 1, size)]
        if rows % size:
            cuts.append((rows, fixed or rows % size))
        yield Arranged(chunk, Piece(chunk, cuts))

    def span(self, rows: int, row: int, wanted: int) -> tuple[int, int]:
        """Neighbours of a row of a chunk, about as many as wanted, in the same batches as in a run."""
        start = row // self._size * self._size
        return start, min(start + max(1, wanted // self._size) * self._size, rows)

    def fed(self, rows: int, tensors: Mapping[str, np.ndarray]) -> int:
        """As how many rows a batch goes into the model."""
        return self._fixed or rows


class ByLength:
    """Texts of about one length together; within a window, which the plan fixes.

    batch_rows: see `lattice.rows_of`. window_rows: at most so many are arranged together. fixed: rows that
    the model takes in each call. threads: that tokenize at once.
    """

    def __init__(
        self, feature: TextColumn, batch_rows: int, window_rows: int, fixed: int | None, threads: int
    ) -> None:
        self._feature, self._size, self._window_rows = feature, batch_rows, window_rows
        self._fixed, self._threads = fixed, threads

    def arrange(self, chunk: Chunk) -> Iterator[Arranged]:
        """Window after window."""
        for first, stop in windows(chunk.columns.num_rows, self._window_rows):
            yield self._arranged(chunk.slice(first, stop - first))

    def _arranged(self, window: Chunk) -> Arranged:
        columns, bad = with_tokens(self._feature, window.columns, self._threads)
        counts = token_counts(columns)
        order = np.argsort(-counts, kind="stable")
        if bad:
            order = order[~np.isin(order, list(bad))]
        cuts = cut_batches(counts[order].tolist(), self._feature.lengths, self._size, self._fixed)
        piece = Piece(window.with_columns(columns).take(order), cuts)
        return Arranged(window, piece, order, bad)

    def span(self, rows: int, row: int, wanted: int) -> tuple[int, int]:
        """A row's window."""
        return next((first, stop) for first, stop in windows(rows, self._window_rows) if first <= row < stop)

    def fed(self, rows: int, tensors: Mapping[str, np.ndarray]) -> int:
        """As how many rows a batch goes into the model."""
        if self._fixed is not None or not self._feature.lengths:
            return self._fixed or rows
        length = tensors[self._feature.inputs[0].name].shape[1]
        return max(rows, rows_of(length, self._size))


Arrangement = InOrder | ByLength


def arrangement(plan: Plan, batch_rows: int, threads: int) -> Arrangement:
    """How a plan's rows become batches."""
    text = text_of(plan.features)
    if text is None:
        return InOrder(batch_rows, plan.fixed_batch)
    return ByLength(text, batch_rows, plan.window_rows, plan.fixed_batch, threads)
