"""A batch that fails: which rows are at fault, and what the others would have got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from batchonnx.errors import HookRaised
from batchonnx.runtime.session import PredictError
from batchonnx.scoring.chunk import BadRow

T = TypeVar("T")

RowFault = (BadRow, PredictError, HookRaised)
"""What a single row can be the cause of. Anything else is the job's fault, or the world's."""


class NoRowAlone(Exception):
    """A batch fails although none of its rows fails alone; the cause is the batch's own error."""


def isolate(
    rows: int, attempt: Callable[[Sequence[int]], T], on_fault: Callable[[int, Exception], None]
) -> T | None:
    """Score a batch in spite of bad rows: the result with a good row in the place of each bad one.

    attempt: scores the rows of these indexes as one batch; raises one of RowFault if it can't.
    on_fault: told each bad row's index, once, and what was raised for it.

    So the batch keeps its length, and good rows get just what they would have got among good
    neighbours. None if no row is good. A bad row among n costs about log2(n) attempts.
    Raises NoRowAlone, and what `attempt` raises besides.
    """
    bad: set[int] = set()

    def blame(index: int, error: Exception) -> None:
        bad.add(index)
        on_fault(index, error)

    try:
        return attempt(range(rows))
    except RowFault as error:
        _search(range(rows), error, attempt, blame)
    good = next((index for index in range(rows) if index not in bad), None)
    if good is None:
        return None
    return attempt([good if index in bad else index for index in range(rows)])


def _search(
    indexes: Sequence[int],
    error: Exception,
    attempt: Callable[[Sequence[int]], object],
    blame: Callable[[int, Exception], None],
) -> None:
    """Blame all bad rows of a run that is known to fail with `error`."""
    while isinstance(error, BadRow):
        # Encoders name the rows: no need to search for them.
        bad = {one.row: one for one in error.each()}
        for row, one in bad.items():
            blame(indexes[row], one)
        indexes = [index for place, index in enumerate(indexes) if place not in bad]
        again = _try(attempt, indexes) if indexes else None
        if again is None:
            return
        error = again
    if len(indexes) == 1:
        blame(indexes[0], error)
        return
    middle = len(indexes) // 2
    left, right = indexes[:middle], indexes[middle:]
    left_error, right_error = _try(attempt, left), _try(attempt, right)
    if left_error is None and right_error is None:
        raise NoRowAlone from error
    for half, found in ((left, left_error), (right, right_error)):
        if found is not None:
            _search(half, found, attempt, blame)


def _try(attempt: Callable[[Sequence[int]], object], indexes: Sequence[int]) -> Exception | None:
    try:
        attempt(indexes)
    except RowFault as error:
        return error
    return None
