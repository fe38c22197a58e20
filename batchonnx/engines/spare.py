"""Workers without a shard left score for those that have one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from math import ceil

from batchonnx.runtime.session import DeviceLost
from batchonnx.scoring.arrange import Piece
from batchonnx.scoring.scorer import Scored

Score = Callable[[Piece], list[Scored]]

TURNS = 2
"""Who takes something of a piece takes an equal share of what is left, divided by this: ever fewer batches,
the last ones alone, so that all end within about a batch of each other."""


class Shared:
    """A piece that several workers score: each takes the next batches, again and again, until none is left.

    Cut between batches, so that who scores what changes no batch. hands: how many they are.
    """

    def __init__(self, piece: Piece, hands: int) -> None:
        self._piece, self._hands = piece, hands
        self._lock = threading.Lock()
        self._taken = 0
        self._results: list[tuple[Piece, Future[list[Scored]]]] = []

    @property
    def is_taken(self) -> bool:
        """Whether nothing is left to take."""
        return self._taken == len(self._piece.cuts)

    def work(self, score: Score) -> bool:
        """Take some batches and score them; False if none was left. What that raises is the owner's.

        Raises DeviceLost, where whoever has taken them can't score any more.
        """
        with self._lock:
            first, total = self._taken, len(self._piece.cuts)
            if first == total:
                return False
            self._taken += ceil((total - first) / (TURNS * self._hands))
            part, result = self._piece.part(first, self._taken), Future[list[Scored]]()
            self._results.append((part, result))
        try:
            result.set_result(score(part))
        except DeviceLost as error:
            result.set_exception(error)
            raise
        except BaseException as error:  # handed over: the owner raises it
            result.set_exception(error)
        return True

    def end(self) -> None:
        """Nobody takes any more."""
        with self._lock:
            self._taken = len(self._piece.cuts)

    def results(self, score: Score) -> Iterator[Scored]:
        """The owner's side: what became of the whole piece, in order, while it works along."""
        number = 0
        while self.work(score) or number < len(self._results):
            while number < len(self._results) and (self.is_taken or self._results[number][1].done()):
                part, result = self._results[number]
                try:
                    scored = result.result()
                except DeviceLost:  # another's
                    scored = score(part)
                yield from scored
                number += 1


class SpareHands:
    """Where workers that still have shards share pieces of chunks with those that have none.

    owners: workers that have, or may get, shards of their own. All must `leave` in the end.
    """

    def __init__(self, owners: int) -> None:
        self._owners = owners
        self._idle = 0
        self._shared: list[Shared] = []
        self._changed = threading.Condition()

    @property
    def idle(self) -> int:
        """Workers that wait for something to do."""
        return self._idle

    def share(self, piece: Piece, score: Score) -> Iterator[Scored]:
        """What becomes of a piece, in order; whoever is idle takes part of it."""
        shared = Shared(piece, self.idle + 1)
        with self._changed:
            self._shared.append(shared)
            self._changed.notify_all()
        try:
            yield from shared.results(score)
        finally:
            shared.end()
            with self._changed:
                self._shared.remove(shared)

    def leave(self) -> None:
        """Say that this worker has no shard and will get none."""
        with self._changed:
            self._owners -= 1
            self._changed.notify_all()

    def serve(self, score: Score) -> None:
        """Score what is shared until no owner is left; the caller has left already.

        Raises DeviceLost, which the owner of a piece is told of as well.
        """
        while (shared := self._wait()) is not None:
            while shared.work(score):
                pass

    def _wait(self) -> Shared | None:
        """The next piece of which something is left; None once no owner is."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._owners == 0 or self._open() is not None)
            self._idle -= 1
            return self._open()

    def _open(self) -> Shared | None:
        return next((shared for shared in self._shared if not shared.is_taken), None)
