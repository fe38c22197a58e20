"""Workers without a shard left score for those that have one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from batchonnx.runtime.session import DeviceLost
from batchonnx.scoring.arrange import Piece
from batchonnx.scoring.scorer import Scored

Score = Callable[[Piece], list[Scored]]


class SpareHands:
    """Where workers that still have shards leave pieces of chunks for those that have none.

    owners: workers that have, or may get, shards of their own. All must `leave` in the end.
    """

    def __init__(self, owners: int) -> None:
        self._owners = owners
        self._idle = 0
        self._offered: deque[tuple[Piece, Future[list[Scored]]]] = deque()
        self._changed = threading.Condition()

    @property
    def idle(self) -> int:
        """Workers that wait for something to do."""
        return self._idle - len(self._offered)

    def offer(self, piece: Piece) -> Future[list[Scored]]:
        """Leave a piece to whoever is idle. The future raises what scoring raises."""
        future: Future[list[Scored]] = Future()
        with self._changed:
            self._offered.append((piece, future))
            self._changed.notify()
        return future

    def leave(self) -> None:
        """Say that this worker has no shard and will get none."""
        with self._changed:
            self._owners -= 1
            self._changed.notify_all()

    def serve(self, score: Score) -> None:
        """Score what is offered until no owner is left; the caller has left already.

        Raises DeviceLost, which the owner of a piece is told of as well.
        """
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._offered or self._owners == 0)
                self._idle -= 1
                if not self._offered:
                    return
                piece, future = self._offered.popleft()
            try:
                future.set_result(score(piece))
            except DeviceLost as error:
                future.set_exception(error)
                self._give_back(error)
                raise
            except BaseException as error:  # handed over: the owner raises it
                future.set_exception(error)

    def _give_back(self, error: DeviceLost) -> None:
        """To the owners, what was offered to one who can't score any more: somebody else may not come."""
        with self._changed:
            offered = [future for _, future in self._offered]
            self._offered.clear()
        for future in offered:
            future.set_exception(error)
