"""The actors of a run: as many as there is room and work for; those that die are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

from batchonnx.engines.ray.actor import Hello, Report, versions
from batchonnx.engines.ray.handout import HandOut
from batchonnx.engines.ray.hiring import Hiring
from batchonnx.engines.ray.losses import Losses
from batchonnx.engines.ray.member import Member, Step
from batchonnx.engines.ray.nodes import ask_for_room, cluster_nodes, draining
from batchonnx.engines.ray.placement import Node, capacity, span, unplaceable, wanted
from batchonnx.errors import ClusterError, Problem
from batchonnx.job.spec import Engine

SILENT_S: dict[Step, float] = {"working": 10.0, "entering": 300.0, "looking": 60.0, "checking": 60.0}
"""Past the end of its turn: an actor's shards go to others as well. A model may take long to be fetched."""

GONE_S = 60.0
"""After that, it is ended and replaced."""


class Staff:
    """Looks after a run's actors.

    hand: what is left to do. is_complete: as many have come as there must be to begin with. is_short: one has
    died since it looked around.
    here_at, ready_at: when the first one was seen, and when it could take shards. most_working: at once.
    """

    def __init__(self, asked: Engine, hand: HandOut, losses: Losses) -> None:
        self._asked, self._hand, self._losses = asked, hand, losses
        self._want = wanted(asked.resources)
        self._members: dict[str, Member] = {}
        self._hiring: Hiring | None = None
        self._gone: list[Report] = []
        self._opened_at = perf_counter()
        self._alone_since: float | None = None
        self._asked_for = 0
        self.is_complete = self.is_short = False
        self.here_at: float | None = None
        self.ready_at: float | None = None
        self.most_working = 0

    @property
    def members(self) -> list[Member]:
        """Those that are there, or on their way."""
        return list(self._members.values())

    def has(self, member: Member) -> bool:
        """Whether an actor is one of them, still."""
        return self._members.get(member.name) is member

    @property
    def working(self) -> int:
        """Those that have shards."""
        return sum(member.step == "working" for member in self._members.values())

    @property
    def reports(self) -> list[Report]:
        """The last word of every actor there was."""
        return [*self._gone, *(member.report for member in self._members.values())]

    # Their coming

    def open(self, hiring: Hiring) -> None:
        """Begin, with those who were hired ahead, as far as there is work for them."""
        self._hiring, self._opened_at = hiring, perf_counter()
        while hiring.ahead:
            member = hiring.ahead.pop()
            self._members[member.name] = member
            if len(self._members) > self._hand.left:
                self.dismiss(member)

    def look_around(self, now: float) -> None:
        """Start actors where there is room for them; where a node is to go, they give back their shards.

        Raises ClusterError if there is no place for as many as there must be.
        """
        self.is_short = False
        leaving = draining()
        nodes = cluster_nodes(leaving)
        for member in self.members:
            if member.hello is not None and member.hello.node in leaving:
                member.gives_back = True
        room = capacity(nodes, self._want)
        least, most = span(self._asked, room)
        self._ask_for_room(min(max(least, most), self._hand.left))
        staying = sum(not (member.gives_back or member.is_silent) for member in self.members)
        target = min(most, room, self._hand.left) - len(self._losses.refused)
        for _ in range(target - staying):
            self._hire()
        self._require_enough(now, nodes, room, min(least, self._hand.left))

    def greet(self, member: Member, hello: Hello) -> None:
        """An actor has come. Raises ClusterError if it has other versions of what decides the bytes."""
        member.hello = hello
        self.here_at = self.here_at or perf_counter()
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
        least, _ = span(self._asked, 1)
        self.is_complete = self.is_complete or self._present >= min(least, self._hand.left)

    def let_in(self, member: Member) -> None:
        """An actor has the model, and takes part."""
        self._losses.started()
        member.step, member.is_entered = "waiting", True

    def welcome(self, member: Member) -> None:
        """An actor is ready for shards."""
        self.ready_at = self.ready_at or perf_counter()
        member.step, member.is_begun = "working", True
        self.most_working = max(self.most_working, self.working)

    # Their going

    def refuse(self, member: Member, finds: str) -> None:
        """An actor finds other predictions. Raises ClusterError if none is left that doesn't."""
        self.dismiss(member)
        self._losses.refuse(member, finds, len(self._members))

    def watch(self, now: float) -> None:
        """Nobody waits for an actor that doesn't answer."""
        for member in self.members:
            if member.call is None or member.step not in SILENT_S:
                continue
            silent_s = SILENT_S[member.step]
            late_s = now - member.asked_at - member.wait_s
            if late_s > silent_s and not member.is_silent:
                member.is_silent = True
                self._hand.mistrust(member.name)
            if late_s > silent_s + GONE_S:
                self._losses.count(member)
                self.dismiss(member)

    def bury(self, member: Member, error: Exception) -> None:
        """An actor has died, by itself or with its node. Raises ClusterError if that goes on and on."""
        if member.first_of is not None:
            self._hand.blame(member.first_of)
        self._hand.lose(member.name)
        self._remove(member)
        self.is_short = True
        self._losses.count(member)
        self._losses.require_hope(member, error, len(self._members))

    def dismiss(self, member: Member) -> None:
        """End an actor; whatever it had goes to others."""
        self._hand.leave(member.name)
        self._remove(member)
        member.end()

    def is_needed(self) -> bool:
        """Whether one of them would be missed."""
        return self._hand.is_needed(len(self._members) - 1)

    def end(self) -> None:
        """Dismiss all, whatever has happened."""
        with suppress(Exception):  # Ray itself may be gone, and the run's own error is the one to tell
            for member in self.members:
                self.dismiss(member)
            self._ask_for_room(0)

    @property
    def _present(self) -> int:
        return sum(member.hello is not None for member in self._members.values())

    def _hire(self) -> None:
        assert self._hiring is not None, "opened"
        member = self._hiring.hire()
        self._members[member.name] = member

    def _remove(self, member: Member) -> None:
        self._gone.append(member.report)
        del self._members[member.name]

    def _ask_for_room(self, workers: int) -> None:
        """What an autoscaler is to make room for; with `auto`, whoever runs the cluster decides."""
        if workers != self._asked_for and self._asked.workers != "auto":
            self._asked_for = workers
            ask_for_room(self._want, workers)

    def _require_enough(self, now: float, nodes: Sequence[Node], room: int, least: int) -> None:
        if self._present >= (1 if self.is_complete else least):
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        allowed_s = max(GONE_S, self._asked.wait_s) if self.is_complete else self._asked.wait_s
        if not nodes or room < least:
            allowed_s = self._asked.wait_s
        if now - self._alone_since >= allowed_s and not self._is_starting(now, room, least):
            raise ClusterError(unplaceable(nodes, self._want, least, now - self._alone_since))

    def _is_starting(self, now: float, room: int, least: int) -> bool:
        """Whether actors have, or will have, their places, and are slow to begin."""
        had_room = self._hiring is not None and self._hiring.had_room
        return had_room and room >= least and bool(self._members) and now - self._opened_at < GONE_S
