"""Which worker gets which shard, how often, and when twice: a policy that knows neither Ray nor clocks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from batchonnx.planning.shards import Shard, largest_first

DEEP = 2
"""Shards at a worker: one that is scored, one whose bytes are on their way."""

DEEPEST = 64
"""Of shards that take no time: a turn's worth is handed out at once, up to so many."""

TURN_S, LONGEST_TURN_S, TURNS_A_SECOND = 0.5, 8.0, 8
"""How long an actor keeps the driver waiting, unless it runs out of shards: the more actors, the longer.

A turn takes about a millisecond of the driver's CPU, whatever it tells of.
"""

SUSPECT, HOPELESS = 2, 5
"""Deaths of workers over a shard: after so many it is scored in a process apart; the run gives up."""

COPIES = 2
"""At how many workers a shard may be at once."""

LONG_S, UNTOLD_S = 1.0, 30.0
"""A copy of a shard that takes less isn't worth it; what is late as long as none has ended."""

RECENT = 64


@dataclass(frozen=True)
class Held:
    """A shard at a worker. since: when it was handed out, in seconds of some clock."""

    shard: int
    since: float


class HandOut:
    """Open shards, who has them, and what became of them.

    deaths: shard -> workers that died over it. suspects: shards to be scored apart. copied: shards
    that were given to a second worker while the first had them.
    """

    def __init__(self, shards: Sequence[Shard], suspects: Container[int]) -> None:
        ordered = largest_first(shards, suspects)
        self._queue = deque(shard.number for shard in ordered)
        self._left = {shard.number for shard in shards}
        self._held: dict[str, list[Held]] = {}
        self._took: deque[float] = deque(maxlen=RECENT)
        self.suspects = {shard.number for shard in shards if shard.number in suspects}
        self.deaths: Counter[int] = Counter()
        self.copied = 0
        self._is_closed = False

    def close(self) -> None:
        """Give nothing out any more."""
        self._is_closed = True

    @property
    def is_drained(self) -> bool:
        """Whether nothing is given out any more, and nobody has anything."""
        return self._is_closed and not any(self._held.values())

    @property
    def left(self) -> int:
        """Shards without a commit."""
        return len(self._left)

    @property
    def hopeless(self) -> int | None:
        """A shard over which too many workers died."""
        return next((s for s, deaths in self.deaths.items() if deaths >= HOPELESS and s in self._left), None)

    def held(self, worker: str) -> Sequence[Held]:
        """What a worker has, in the order that it was given it."""
        return self._held.get(worker, ())

    def give(self, worker: str, now: float, workers: int, rate: float) -> list[int]:
        """Shards for a worker to have as well; none if it has enough, or nothing is left for it.

        workers: how many there are. rate: shards/s that this one has done of late.
        """
        held = self._held.setdefault(worker, [])
        given: list[int] = []
        if self._is_closed:
            return given
        want = depth(len(self._queue), workers, rate) - len(held)
        mine = {one.shard for one in held}
        while want > len(given) and (shard := self._next(mine)) is not None:
            given.append(shard)
            held.append(Held(shard, now))
        if not held and (late := self._late(worker, now)) is not None:
            self.copied += 1
            given.append(late)
            held.append(Held(late, now))
        return given

    def commit(self, worker: str, shard: int, now: float) -> bool:
        """A worker has told of a shard's commit; whether that is news."""
        held = self._held.get(worker, [])
        for one in held:
            if one.shard == shard:
                self._took.append(now - one.since)
                held.remove(one)
                break
        is_news = shard in self._left
        self._left.discard(shard)
        return is_news

    def give_back(self, worker: str, shards: Sequence[int]) -> None:
        """A worker hasn't begun these, and won't."""
        gone = set(shards)
        self._held[worker] = [one for one in self._held.get(worker, []) if one.shard not in gone]
        self._requeue(shards)

    def mistrust(self, worker: str) -> None:
        """A worker is silent: what it has may go to others at once, what it commits still counts."""
        self._requeue([one.shard for one in self._held.get(worker, []) if self._copies(one.shard) < COPIES])

    def lose(self, worker: str) -> None:
        """A worker has died: the shard that it was at may be the cause, the others aren't."""
        lost = [one.shard for one in self._held.pop(worker, []) if one.shard in self._left]
        if lost:
            self.deaths[lost[0]] += 1
            if self.deaths[lost[0]] >= SUSPECT:
                self.suspects.add(lost[0])
        self._requeue([shard for shard in lost if self._copies(shard) == 0])

    def first(self, looked_at: Container[int]) -> int | None:
        """The next shard whose first rows may be looked at; None if there is none that harmed nobody."""
        return next((s for s in self._queue if s not in looked_at and s not in self.suspects), None)

    def blame(self, shard: int) -> None:
        """A worker has died over a shard's first rows."""
        self.deaths[shard] += 1
        if self.deaths[shard] >= SUSPECT:
            self.suspects.add(shard)

    def leave(self, worker: str) -> None:
        """A worker is ended by us; whatever it had, nobody is to blame."""
        lost = [one.shard for one in self._held.pop(worker, []) if one.shard in self._left]
        self._requeue([shard for shard in lost if self._copies(shard) == 0])

    def is_needed(self, workers: int) -> bool:
        """Whether one more worker than there are could have something to do.

        Be it a copy: of the last shards, one may be at somebody who has fallen asleep.
        """
        return not self._is_closed and (bool(self._queue) or workers < COPIES * self.left)

    def _next(self, mine: Container[int]) -> int | None:
        for _ in range(len(self._queue)):
            shard = self._queue.popleft()
            if shard not in self._left:
                continue
            if shard not in mine:
                return shard
            self._queue.append(shard)
        return None

    def _requeue(self, shards: Sequence[int]) -> None:
        """To the front, since they are late; those that may kill their worker to the end."""
        for shard in reversed(shards):
            if shard in self._left and shard not in self._queue:
                if shard in self.suspects:
                    self._queue.append(shard)
                else:
                    self._queue.appendleft(shard)

    def _copies(self, shard: int) -> int:
        return sum(one.shard == shard for held in self._held.values() for one in held)

    def _late(self, worker: str, now: float) -> int | None:
        """The shard, of those that others have, that has been under way for longest, if that is too long."""
        usual = max(LONG_S, 2 * median(self._took)) if self._took else UNTOLD_S
        late = [
            one
            for other, held in self._held.items()
            for one in held
            if other != worker
            and one.shard in self._left
            and one.shard not in self.suspects
            and now - one.since > usual
            and self._copies(one.shard) < COPIES
        ]
        return min(late, key=lambda one: one.since).shard if late else None


def turn_s(workers: int) -> float:
    """How long one of so many workers may wait before it answers, in seconds."""
    return min(max(TURN_S, workers / TURNS_A_SECOND), LONGEST_TURN_S)


def depth(queued: int, workers: int, rate: float) -> int:
    """How many shards a worker is to have.

    Two when its turn is over, at its rate of shards/s; one where there aren't enough for all.
    """
    share = ceil(queued / max(1, workers))
    return max(1, min(share, DEEP + int(rate * turn_s(workers)), DEEPEST))
