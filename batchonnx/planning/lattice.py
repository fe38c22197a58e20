"""The few shapes in which texts of any length reach the model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

POINTS = 32
"""So many lengths at most: what a session keeps for each stays bounded, and padding is a few percent."""

SHORTEST = 4
"""Shorter texts are padded to this."""

NOMINAL_TOKENS = 64
"""`batch_rows` counts rows of so many tokens: it has more of shorter texts, fewer of longer ones."""

Cut = tuple[int, int]
"""Where a batch ends, and as how many rows it is fed: those missing are made up, and cut off again."""


def lengths(longest: int) -> tuple[int, ...]:
    """What texts of at most `longest` tokens are padded to: ascending, the last one `longest`.

    Each is as many percent above the one before, so that short texts waste no more than long ones.
    """
    points = [min(SHORTEST, longest)]
    while points[-1] < longest:
        ratio = (longest / points[-1]) ** (1 / (POINTS - len(points)))
        points.append(min(longest, max(points[-1] + 1, round(points[-1] * ratio))))
    return tuple(points)


def padded(tokens: int, points: Sequence[int]) -> int:
    """The length that a text of so many tokens is padded to; its own where there are no points."""
    return points[bisect_left(points, tokens)] if points else tokens


def rows_of(length: int, batch_rows: int) -> int:
    """How many texts of a length are in one batch: as many tokens as `batch_rows` texts of NOMINAL_TOKENS."""
    return max(1, batch_rows * NOMINAL_TOKENS // max(length, 1))


def cut_batches(
    tokens: Sequence[int], points: Sequence[int], batch_rows: int, fixed: int | None = None
) -> list[Cut]:
    """The batches of some texts. tokens: of each text, the longest first. points: see `lengths`.

    All batches of a length have the same rows: only the last one, of the shortest texts, is filled up.
    Without points nothing is padded: texts of one length are together, in powers of two of them.
    fixed: rows that the model takes in each call; None: any number.
    """
    cuts: list[Cut] = []
    stop = 0
    if points:
        while stop < len(tokens):
            rows = fixed or rows_of(padded(tokens[stop], points), batch_rows)
            stop = min(stop + rows, len(tokens))
            cuts.append((stop, rows))
        return cuts
    counts = np.asarray(tokens)
    for end in [*(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(counts)]:
        most = fixed or rows_of(tokens[stop], batch_rows) if stop < end else 0
        while stop < end:
            rows = min(most, end - stop if fixed else 1 << ((end - stop).bit_length() - 1))
            stop += rows
            cuts.append((stop, fixed or rows))
    return cuts


def windows(rows: int, most: int) -> list[tuple[int, int]]:
    """Rows that are arranged together: first and stop of each window of at most `most`, about equal."""
    count = -(-rows // most)
    return [(rows * number // count, rows * (number + 1) // count) for number in range(count)]
