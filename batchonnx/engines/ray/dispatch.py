"""The way of one actor: it comes, enters the run, looks at the first rows or is checked, takes shards."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from batchonnx.engines.ray.actor import Answer, Entered, First, Hello, Orders, Report
from batchonnx.engines.ray.first_rows import FirstRows
from batchonnx.engines.ray.handout import DEEP, HandOut, turn_s
from batchonnx.engines.ray.losses import Losses
from batchonnx.engines.ray.member import Member
from batchonnx.engines.ray.staff import Staff
from batchonnx.errors import BatchonnxError, Problem
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Commit
from batchonnx.scoring.quarantine import ErrorBudget


class Dispatch:
    """Gives actors their tasks and takes their answers.

    entry: what an actor enters the run with, see `Actor.enter`; set before the first one has come.
    made: shard -> its commit, of this life of the run; made_rows: read for them; untold: those that nobody
    who watches was told of yet. first_at, last_at: when the
    first batch was predicted, and when the last commit was told of, by this machine's perf_counter. notes: of
    actors, for the user, in order.
    """

    def __init__(
        self,
        hand: HandOut,
        staff: Staff,
        losses: Losses,
        first_rows: FirstRows,
        run: Run,
        budget: ErrorBudget,
    ) -> None:
        self._hand, self._staff, self._losses, self._first_rows = hand, staff, losses, first_rows
        self._run, self._budget = run, budget
        self.entry: tuple[Any, ...] = ()
        self.made: dict[int, Commit] = {}
        self.untold: list[Commit] = []
        self.made_rows = 0
        self.notes: dict[str, None] = {}
        self.first_at: float | None = None
        self.last_at: float | None = None

    def go_on(self, member: Member) -> None:
        """An actor has answered, or died. Raises its trouble, with its host."""
        import ray

        assert member.answer is not None, "listened to"
        answer, member.call, member.answer = member.answer, None, None
        try:
            told = answer.result()
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours: actors give their trouble back
        except ray.exceptions.RayError as error:
            self._staff.bury(member, error)
            return
        member.is_silent = False
        if isinstance(told, Hello):
            self._staff.greet(member, told)
            return
        if told.trouble is not None:
            _raise(told.trouble, member)
        if isinstance(told, Entered):
            self.notes |= dict.fromkeys(told.notes)
            self._staff.let_in(member)
        elif isinstance(told, First):
            member.step, member.first_of = "waiting", None
            self._first_rows.learn(told)
        elif isinstance(told, Answer):
            self._compare(member, told)
        else:
            self._take(member, told)

    def use(self, member: Member) -> None:
        """Give an actor that has nothing to do its next task, if there is one."""
        first_rows = self._first_rows
        if not member.is_entered:
            member.ask("entering", member.actor.enter.remote(*self.entry))
        elif not first_rows.is_settled:
            if not any(other.step == "looking" for other in self._staff.members):
                self._look_at_first_rows(member)
        elif not member.is_begun:
            assert first_rows.lesson is not None, "settled"
            if self._staff.is_complete:
                member.ask("checking", member.actor.begin.remote(first_rows.lesson, first_rows.canary))
        else:
            self._turn(member)

    def _look_at_first_rows(self, member: Member) -> None:
        shard = self._first_rows.next_shard(self._hand)
        if shard is not None:
            member.first_of = shard
            member.ask("looking", member.actor.first.remote(shard, self._first_rows.known_rows))

    def _compare(self, member: Member, answer: Answer) -> None:
        differs = self._first_rows.difference(answer)
        if differs is not None:
            self._staff.refuse(member, differs)
            return
        self._staff.welcome(member)
        self._turn(member)

    def _take(self, member: Member, report: Report) -> None:
        now = perf_counter()
        if report.first_s is not None and self.first_at is None:
            self.first_at = now - report.first_s
        member.report = report
        for commit in report.commits:
            member.committed_rows += commit.rows_in
            if self._hand.commit(member.name, commit.shard, now):
                self.made[commit.shard], self.last_at = commit, now
                self.untold.append(commit)
                self.made_rows += commit.rows_in
                self._run.take_note(commit)
                self._losses.bore_fruit()
                if commit.quarantined:
                    self._budget.count(commit.quarantined)
        rate = len(report.commits) / max(now - member.asked_at, 1e-3)
        member.rate = (member.rate + rate) / 2 if member.rate else rate
        self._hand.give_back(member.name, report.returned)
        self._turn(member)

    def _turn(self, member: Member) -> None:
        working = self._staff.working
        given: list[int] = []
        if not member.gives_back:
            given = self._hand.give(member.name, perf_counter(), working, member.rate)
        held = self._hand.held(member.name)
        if not held:
            if member.gives_back or not self._staff.is_needed():
                self._staff.dismiss(member)
            else:
                member.step = "waiting"
            return
        wait_s = turn_s(working)
        suspects = frozenset(self._hand.suspects.intersection(given))
        enough = max(1, len(held) - DEEP + 1)  # when it has one left, it is given more
        orders = Orders(given, suspects, wait_s, enough, member.gives_back)
        member.ask("working", member.actor.turn.remote(orders), wait_s)


def _raise(trouble: BaseException, member: Member) -> None:
    """An actor's error is the run's, told with where it came from."""
    host = member.hello.host if member.hello is not None else None
    if isinstance(trouble, BatchonnxError) and host is not None:
        told = [Problem(p.title, {**p.facts, "worker": f"on {host}"}, p.fix) for p in trouble.problems]
        raise type(trouble)(*told)
    raise trouble
