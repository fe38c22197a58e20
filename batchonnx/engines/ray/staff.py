"""The actors of a run: as many as there is room and work for; those that die are replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from batchonnx.engines.ray.actor import Hello, Report, versions
from batchonnx.engines.ray.connect import draining
from batchonnx.engines.ray.handout import HandOut
from batchonnx.engines.ray.hiring import Hiring
from batchonnx.engines.ray.member import Member
from batchonnx.engines.ray.placement import Node, capacity, read_nodes, span, unplaceable, wanted
from batchonnx.errors import ClusterError, Problem
from batchonnx.job.spec import Engine, Span
from batchonnx.planning.plan import Plan

SILENT_S, GONE_S = 10.0, 60.0
"""Past the end of its turn: an actor's shards go to others as well; it is ended and replaced."""

FRUITLESS = 10
"""Actors that may die, one after the other, with no commit in between; or three for each there is."""

FAILED_STARTS = 3
SAID = 300


class Staff:
    """Looks after a run's actors.

    fruitless: actors that died since the last commit. ready_at: when the first one could take shards.
    most_working: at the same time.
    """

    def __init__(self, plan: Plan, asked: Engine, hand: HandOut) -> None:
        self._plan, self._asked, self._hand = plan, asked, hand
        self._members: dict[str, Member] = {}
        self._hiring: Hiring | None = None
        self._gone: list[Report] = []
        self._lost: Counter[str] = Counter()
        self._refused: list[str] = []
        self._begun_at = perf_counter()
        self._alone_since: float | None = None
        self._failed_starts = 0
        self._had_room = False
        self.fruitless = 0
        self.ready_at: float | None = None
        self.most_working = 0

    # What came of it

    @property
    def members(self) -> list[Member]:
        """Those that are there, or on their way."""
        return list(self._members.values())

    @property
    def working(self) -> int:
        """Those that have shards."""
        return sum(member.step == "working" for member in self._members.values())

    @property
    def reports(self) -> list[Report]:
        """The last word of every actor there was."""
        return [*self._gone, *(member.report for member in self._members.values())]

    @property
    def lost(self) -> int:
        """Actors that died."""
        return sum(self._lost.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Which died or were refused, by their hosts."""
        told = [f"{count} workers died on {host}" for host, count in sorted(self._lost.items())]
        return (*told, *(f"refused a worker: {reason}" for reason in self._refused))

    # Their coming

    def open(self, hiring: Hiring) -> None:
        """Begin, on a cluster that is there."""
        import ray

        self._begun_at = perf_counter()
        self._hiring = hiring
        free = ray.available_resources()
        want = wanted(self._asked.resources)
        self._had_room = all(free.get(name, 0) >= amount for name, amount in want.items())
        if isinstance(self._asked.workers, Span):
            _ask_autoscaler([dict(want)] * self._asked.workers.max)

    def look_around(self, now: float) -> None:
        """Start actors where there is room for them; where a node is to go, they give back their shards.

        Raises ClusterError if there is no place for as many as there must be.
        """
        leaving = draining()
        nodes = cluster_nodes(leaving)
        for member in self.members:
            if member.hello is not None and member.hello.node in leaving:
                member.gives_back = True
        want = wanted(self._asked.resources)
        room = capacity(nodes, want)
        least, most = span(self._asked, room)
        staying = sum(not member.gives_back for member in self.members)
        target = min(most, room, self._hand.left) - len(self._refused)
        for _ in range(target - staying):
            self._hire()
        self._require_enough(now, nodes, room, min(least, self._hand.left))

    def greet(self, member: Member, hello: Hello) -> None:
        """An actor has come. Raises ClusterError if it has other versions of what decides the bytes."""
        member.hello, self._failed_starts = hello, 0
        ours = versions()
        others = {
            name: f"{hello.versions.get(name, 'absent')}, here {ours.get(name, 'absent')}"
            for name in sorted({*ours, *hello.versions} - {"python", "numpy"})
            if hello.versions.get(name) != ours.get(name)
        }
        if others:
            fix = "install the same versions there as here: other ones may give other bytes"
            raise ClusterError(
                Problem(f"other versions on {hello.host} than here", {"host": hello.host, **others}, fix)
            )
        member.step = "waiting"

    def welcome(self, member: Member) -> None:
        """An actor is ready for shards."""
        self.ready_at = self.ready_at or perf_counter()
        member.step, member.is_begun = "working", True
        self.most_working = max(self.most_working, self.working)

    # Their going

    def refuse(self, member: Member, finds: str) -> None:
        """An actor finds other predictions. Raises ClusterError if none is left that doesn't."""
        host = member.hello.host if member.hello is not None else "a node unknown"
        self._refused.append(f"on {host} it finds {finds}")
        self.dismiss(member)
        if not self._members:
            facts = {f"worker {n}": reason for n, reason in enumerate(self._refused, 1)}
            fix = "look at those machines' hardware and libraries; this machine's may be at fault, too"
            title = "every worker finds other predictions than this machine"
            raise ClusterError(Problem(title, facts, fix))

    def watch(self, now: float) -> None:
        """Nobody waits for an actor that doesn't answer."""
        for member in self.members:
            if member.call is None or member.step == "coming":
                continue
            late_s = now - member.asked_at - member.wait_s
            slow = SILENT_S if member.step == "working" else GONE_S
            if late_s > slow and not member.is_silent:
                member.is_silent = True
                self._hand.mistrust(member.name)
            if late_s > slow + GONE_S:
                self._count_loss(member)
                self.dismiss(member)

    def bury(self, member: Member, error: Exception) -> None:
        """An actor has died, by itself or with its node. Raises ClusterError if that goes on and on."""
        said = " ".join(str(error).split())
        if member.hello is None:
            self._require_startable(said)
        if member.first_of is not None:
            self._hand.blame(member.first_of)
        self._count_loss(member)
        self._hand.lose(member.name)
        self._remove(member)
        self.fruitless += 1
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
        if self.fruitless > max(FRUITLESS, 3 * len(self._members)):
            facts = {"died": str(self.fruitless), "the last": said[-SAID:]}
            fix = "see what Ray says; the same command goes on where this run stopped"
            raise ClusterError(Problem("workers die, one after the other, and get nothing done", facts, fix))

    def dismiss(self, member: Member) -> None:
        """End an actor; whatever it had goes to others."""
        import ray

        self._hand.leave(member.name)
        self._remove(member)
        ray.kill(member.actor, no_restart=True)

    def is_needed(self) -> bool:
        """Whether one of them would be missed."""
        return self._hand.is_needed(len(self._members) - 1)

    def end(self) -> None:
        """Dismiss all, whatever has happened."""
        with suppress(Exception):  # Ray itself may be gone, and the run's own error is the one to tell
            for member in self.members:
                self.dismiss(member)
            if isinstance(self._asked.workers, Span):
                _ask_autoscaler([])

    def _hire(self) -> None:
        assert self._hiring is not None, "opened"
        member = self._hiring.hire()
        self._members[member.name] = member

    def _require_enough(self, now: float, nodes: Sequence[Node], room: int, least: int) -> None:
        present = sum(member.hello is not None for member in self.members)
        if present >= (least if self.ready_at is None else 1):
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        allowed_s = self._asked.wait_s if self.ready_at is None else max(GONE_S, self._asked.wait_s)
        if not nodes or room < least:
            allowed_s = self._asked.wait_s
        if now - self._alone_since >= allowed_s and not self._is_starting(now, room, least):
            want = wanted(self._asked.resources)
            raise ClusterError(unplaceable(nodes, want, least, now - self._alone_since))

    def _is_starting(self, now: float, room: int, least: int) -> bool:
        """Whether actors have, or will have, their places, and are slow to begin."""
        return self._had_room and room >= least and bool(self._members) and now - self._begun_at < GONE_S

    def _require_startable(self, said: str) -> None:
        self._failed_starts += 1
        if "No module named 'batchonnx" in said:
            facts = {"found": "No module named 'batchonnx'"}
            fix = "install batchonnx in the cluster's image or environment, in this version"
            raise ClusterError(Problem("batchonnx isn't installed on the cluster's nodes", facts, fix))
        if self._failed_starts > FAILED_STARTS:
            facts = {"tried": str(self._failed_starts), "found": said[-SAID:]}
            raise ClusterError(Problem("workers can't be started", facts, "see what Ray says"))

    def _count_loss(self, member: Member) -> None:
        self._lost[member.hello.host if member.hello is not None else "a node unknown"] += 1

    def _remove(self, member: Member) -> None:
        self._gone.append(member.report)
        del self._members[member.name]


def cluster_nodes(leaving: Sequence[str] = ()) -> list[Node]:
    """The cluster's nodes, without those that leave."""
    import ray

    return read_nodes(ray.nodes(), leaving)


def _ask_autoscaler(bundles: list[dict[str, Any]]) -> None:
    """A wish, where there is an autoscaler."""
    with suppress(Exception):  # of many kinds, where there is none
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)
