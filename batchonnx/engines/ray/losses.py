"""Actors that died, didn't start or were refused: counted by their hosts, until it is too much."""

from __future__ import annotations

from collections import Counter

from batchonnx.engines.ray.handout import HandOut
from batchonnx.engines.ray.member import Member
from batchonnx.errors import ClusterError, Problem
from batchonnx.planning.plan import Plan

FRUITLESS = 10
"""Actors that may die, one after the other, with no commit in between; or three for each there is."""

FAILED_STARTS = 3
SAID = 300


class Losses:
    """What a run has lost. refused: why, for each actor that found other predictions."""

    def __init__(self, plan: Plan, hand: HandOut) -> None:
        self._plan, self._hand = plan, hand
        self._died: Counter[str] = Counter()
        self._fruitless = self._failed_starts = 0
        self.refused: list[str] = []

    @property
    def died(self) -> int:
        """Actors that died."""
        return self._died.total()

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user: which died or were refused, by their hosts."""
        told = [f"{count} workers died on {host}" for host, count in sorted(self._died.items())]
        return (*told, *(f"refused a worker: {reason}" for reason in self.refused))

    def started(self) -> None:
        """An actor has entered the run."""
        self._failed_starts = 0

    def bore_fruit(self) -> None:
        """There is a commit."""
        self._fruitless = 0

    def count(self, member: Member) -> None:
        """An actor is gone."""
        self._died[host_of(member)] += 1

    def require_hope(self, member: Member, error: Exception, others: int) -> None:
        """An actor is gone; others: that are left. Raises ClusterError if that goes on and on."""
        said = " ".join(str(error).split())
        if not member.is_entered:
            self._require_startable(said)
        self._fruitless += 1
        if (shard := self._hand.hopeless) is not None:
            facts = {
                "shard": str(shard),
                "part": next(self._plan.part(one) for one in self._plan.shards if one.number == shard),
                "found": said[-SAID:],
            }
            fix = "look at its rows, or give workers more memory: engine.resources.memory"
            raise ClusterError(
                Problem(f"{self._hand.deaths[shard]} workers died over one shard, apart as well", facts, fix)
            )
        if self._fruitless > max(FRUITLESS, 3 * others):
            facts = {"died": str(self._fruitless), "the last": said[-SAID:]}
            fix = "see what Ray says; the same command goes on where this run stopped"
            raise ClusterError(Problem("workers die, one after the other, and get nothing done", facts, fix))

    def refuse(self, member: Member, finds: str, others: int) -> None:
        """An actor finds other predictions. Raises ClusterError if no others are left."""
        self.refused.append(f"on {host_of(member)} it finds {finds}")
        if not others:
            facts = {f"worker {n}": reason for n, reason in enumerate(self.refused, 1)}
            fix = "look at those machines' hardware and libraries; this machine's may be at fault, too"
            title = "every worker finds other predictions than this machine"
            raise ClusterError(Problem(title, facts, fix))

    def _require_startable(self, said: str) -> None:
        self._failed_starts += 1
        if "No module named 'batchonnx" in said:
            facts = {"found": "No module named 'batchonnx'"}
            fix = "install batchonnx in the cluster's image or environment, in this version"
            raise ClusterError(Problem("batchonnx isn't installed on the cluster's nodes", facts, fix))
        if self._failed_starts > FAILED_STARTS:
            facts = {"tried": str(self._failed_starts), "found": said[-SAID:]}
            raise ClusterError(Problem("workers can't be started", facts, "see what Ray says"))


def host_of(member: Member) -> str:
    """As messages name it."""
    return member.hello.host if member.hello is not None else "a node unknown"
