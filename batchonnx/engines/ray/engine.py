"""The Ray engine: actors with a worker each, and a driver that hands out shards and looks after them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import pyarrow as pa

from batchonnx.engines.engine import interrupted
from batchonnx.engines.ray.actor import (
    Actor,
    Answer,
    First,
    Hello,
    Orders,
    Report,
    Setup,
    model_files,
    versions,
)
from batchonnx.engines.ray.canary import Canary, difference
from batchonnx.engines.ray.connect import connected, draining
from batchonnx.engines.ray.handout import HandOut, depth
from batchonnx.engines.ray.model_cache import MODEL
from batchonnx.engines.ray.placement import (
    Node,
    capacity,
    machines,
    read_nodes,
    span,
    unplaceable,
    wanted,
)
from batchonnx.errors import BatchonnxError, ClusterError, ContractError, Problem
from batchonnx.job.spec import Span
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Commit
from batchonnx.planning.plan import Plan
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.session import Model
from batchonnx.scoring.probe import UNTRIED_ROWS, Lesson
from batchonnx.scoring.progress import STAGES, Progress
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.scorer import Scorer
from batchonnx.scoring.stream import from_bytes, to_bytes

TICK_S, LOOK_S = 0.2, 2.0
TURN_S, LONGEST_TURN_S, TURNS_A_SECOND = 0.5, 4.0, 32
"""How long an actor keeps the driver waiting where nothing happens: the more actors, the longer."""

SILENT_S, GONE_S = 10.0, 60.0
"""Past the end of its turn: an actor's shards go to others as well; it is ended and replaced."""

FRUITLESS = 10
"""Actors that may die, one after the other, with no commit in between; or three for each there is."""

FAILED_STARTS = 3
FIRST_SHARDS = 3
SAID = 300


@dataclass
class _Member:
    """An actor, and what it is at. asked_at: when the call in flight was made."""

    name: str
    actor: Any
    step: str = "coming"
    call: Any = None
    asked_at: float = 0.0
    wait_s: float = 0.0
    hello: Hello | None = None
    first_of: int | None = None
    report: Report = field(default_factory=Report)
    rate: float = 0.0
    committed_rows: int = 0
    is_begun: bool = False
    is_silent: bool = False
    gives_back: bool = False


class RayEngine:
    """Scores a plan's shards in actors of a Ray cluster; see `engine.Engine`.

    model: the driver's own, for the canary. lesson: what the run's first rows have taught in a former life.
    measured: rows in one call, as an earlier run has measured. on_lesson: told, once, what is new.
    """

    name = "ray"

    def __init__(
        self,
        plan: Plan,
        model: Model,
        run: Run,
        budget: ErrorBudget,
        lesson: Lesson | None,
        measured: int | None,
        on_lesson: Callable[[Lesson], None],
    ) -> None:
        self._plan, self._model, self._run, self._budget = plan, model, run, budget
        self._asked = plan.job.job.engine
        self._lesson, self._measured, self._on_lesson = lesson, measured, on_lesson
        open_shards = [shard for shard in plan.shards if shard.number not in run.commits]
        self._hand = HandOut(open_shards, run.suspects)
        self._new: dict[int, Commit] = {}
        self._members: dict[str, _Member] = {}
        self._canary: Canary | None = None
        self._answer: pa.RecordBatch | None = None
        self._is_taught = False
        self._looked_at: set[int] = set()
        self._born = 0
        self._refused: list[str] = []
        self._gone: list[Report] = []
        self._first_at: float | None = None
        self._ready_at: float | None = None
        self._begun_at = perf_counter()
        self._alone_since: float | None = None
        self._fruitless = self._failed_starts = 0
        self._had_room = False
        self._lost: Counter[str] = Counter()
        self.workers, self.threads = 0, self._asked.resources.num_cpus

    # What came of it

    @property
    def commits(self) -> list[Commit]:
        """Of all shards that are done, in former lives of the run or now."""
        return [*self._run.commits.values(), *self._new.values()]

    @property
    def lesson(self) -> Lesson | None:
        """What the first rows taught; None if none had to be scored."""
        return self._lesson

    @property
    def busy_s(self) -> dict[str, float]:
        """Stage -> seconds, summed over all workers."""
        return {stage: sum(r.busy_s.get(stage, 0.0) for r in self._reports) for stage in STAGES}

    @property
    def calls(self) -> int:
        """Calls of the model, as far as was told by actors that died."""
        return sum(report.calls for report in self._reports)

    @property
    def halved(self) -> int:
        """Batches that needed too much memory and were scored in pieces."""
        return sum(report.halved for report in self._reports)

    @property
    def first_at(self) -> float | None:
        """When the first batch was predicted, by this machine's perf_counter."""
        return self._first_at

    @property
    def apart(self) -> int:
        """Shards scored in a process of their own."""
        return len(self._hand.suspects)

    @property
    def lost(self) -> int:
        """Actors that died."""
        return sum(self._lost.values())

    @property
    def copied(self) -> int:
        """Shards that a second worker was given."""
        return self._hand.copied

    @property
    def start_s(self) -> float | None:
        """Until the first actor could take shards."""
        return self._ready_at - self._begun_at if self._ready_at is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Which workers died or were refused, by their hosts."""
        told = [f"{count} workers died on {host}" for host, count in sorted(self._lost.items())]
        return (*told, *(f"refused a worker: {reason}" for reason in self._refused))

    @property
    def _reports(self) -> list[Report]:
        return [*self._gone, *(member.report for member in self._members.values())]

    # The run

    def run(
        self,
        stop: threading.Event,
        drain: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Score every open shard; see `engine.Engine`. Raises ClusterError as well."""
        self._begun_at = perf_counter()
        if not self._hand.left:
            return
        try:
            with connected(self._asked.address):
                try:
                    self._prepare()
                    self._loop(stop, drain, on_progress)
                finally:
                    self._end_all()
        finally:
            self._run.end()

    def _prepare(self) -> None:
        import ray

        plan = self._plan
        self._require_one_machine(self._nodes())
        free = ray.available_resources()
        want = wanted(self._asked.resources)
        self._had_room = all(free.get(name, 0) >= amount for name, amount in want.items())
        file = find_model(plan.model.path)
        if file.digest != plan.model.digest:
            facts = {"model": plan.model.path, "planned": plan.model.digest, "found": file.digest}
            raise ContractError(
                Problem("the model has changed meanwhile", facts, "run the same command again")
            )
        budget = self._budget
        setup = Setup(
            plan,
            self._run.ticket(),
            self.threads,
            plan.job.job.errors.max_bad_rows,
            budget.rows_total,
            budget.spent,
            frozenset(self._hand.suspects),
        )
        self._setup = [ray.put(setup)]
        self._files = [ray.put(model_files(file.local, file.external, MODEL))]
        resources = self._asked.resources
        self._actor = ray.remote(Actor).options(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            memory=resources.memory,
            resources=resources.custom,
            accelerator_type=resources.accelerator_type,
            max_restarts=0,
            max_task_retries=0,
        )
        if isinstance(self._asked.workers, Span):
            _ask_autoscaler([dict(wanted(resources))] * self._asked.workers.max)

    def _loop(
        self,
        stop: threading.Event,
        drain: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        looked_at = progressed_at = float("-inf")
        while self._hand.left:
            if drain.is_set():
                self._hand.close()
            if stop.is_set() or self._hand.is_drained:
                raise interrupted(len(self.commits), len(self._plan.shards))
            now = perf_counter()
            if now - looked_at >= LOOK_S:
                looked_at = now
                self._look_around(now)
            for member in self._answered():
                self._go_on(member)
            self._watch(perf_counter())
            for member in list(self._members.values()):
                if member.step == "waiting":
                    self._use(member)
            if on_progress is not None and perf_counter() - progressed_at >= TICK_S:
                progressed_at = perf_counter()
                on_progress(self._progress())

    def _answered(self) -> list[_Member]:
        import ray

        calls = {member.call: member for member in self._members.values() if member.call is not None}
        if not calls:
            threading.Event().wait(TICK_S)
            return []
        ready, rest = ray.wait(list(calls), num_returns=1, timeout=TICK_S)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        return [calls[call] for call in ready]

    def _go_on(self, member: _Member) -> None:
        """An actor has answered, or died."""
        import ray

        call, member.call = member.call, None
        try:
            told = ray.get(call)
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours: actors give their trouble back
        except ray.exceptions.RayError as error:
            self._bury(member, error)
            return
        if member.is_silent:
            member.is_silent = False
        if told.trouble is not None:
            self._raise(told.trouble, member)
        if isinstance(told, Hello):
            self._greet(member, told)
        elif isinstance(told, First):
            self._learn(member, told)
        elif isinstance(told, Answer):
            self._compare(member, told)
        else:
            self._take(member, told)

    # An actor's way: coming, waiting, looking at the first rows, checking, working

    def _greet(self, member: _Member, hello: Hello) -> None:
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

    def _use(self, member: _Member) -> None:
        """Give an actor that has nothing to do its next task, if there is one."""
        if not self._is_taught:
            if not any(other.step == "looking" for other in self._members.values()):
                self._look_at_first_rows(member)
        elif not member.is_begun:
            assert self._lesson is not None, "taught"
            rows = self._canary.rows if self._canary is not None else None
            self._call(member, "checking", member.actor.begin.remote(self._lesson, rows))
        else:
            self._turn(member)

    def _look_at_first_rows(self, member: _Member) -> None:
        shard = self._hand.first(self._looked_at) if len(self._looked_at) < FIRST_SHARDS else None
        if shard is None:
            self._teach(self._lesson or Lesson(self._blind_rows(), None))
            return
        self._looked_at.add(shard)
        member.first_of = shard
        known = self._lesson.batch_rows if self._lesson is not None else self._measured
        self._call(member, "looking", member.actor.first.remote(shard, known))

    def _learn(self, member: _Member, first: First) -> None:
        member.step, member.first_of = "waiting", None
        if first.lesson is None:
            return  # no row passes the filter there: another shard is looked at
        if first.rows is not None:
            self._set_canary(from_bytes(first.rows), self._lesson or first.lesson)
        self._teach(self._lesson or first.lesson)

    def _teach(self, lesson: Lesson) -> None:
        self._is_taught = True
        if self._lesson is None:
            self._lesson = lesson
            self._on_lesson(lesson)

    def _blind_rows(self) -> int:
        asked = self._asked.batch_rows
        return self._plan.fixed_batch or (asked if asked != "auto" else self._measured or UNTRIED_ROWS)

    def _set_canary(self, rows: pa.RecordBatch, lesson: Lesson) -> None:
        """Rows that the driver can score: a bad one among them tells nothing of a worker."""
        scorer = Scorer(self._plan, self._model, lesson.batch_rows)
        good = []
        for row in range(rows.num_rows):
            with suppress(Exception):  # whatever a bad row causes; a worker will tell of it
                scorer.attempt(rows.slice(row, 1))
                good.append(row)
        if not good:
            return
        kept = rows.take(pa.array(good))
        with suppress(Exception):  # as above: a model that fails on a batch but on none of its rows
            self._answer = scorer.attempt(kept)
            self._canary = Canary(to_bytes(kept), to_bytes(self._answer))

    def _compare(self, member: _Member, answer: Answer) -> None:
        assert member.hello is not None
        if self._answer is not None and answer.answer is not None:
            differs = difference(self._answer, from_bytes(answer.answer))
            if differs is not None:
                self._refused.append(f"on {member.hello.host} it finds {differs}")
                self._dismiss(member)
                if not self._members:
                    facts = {f"worker {n}": reason for n, reason in enumerate(self._refused, 1)}
                    fix = (
                        "look at those machines' hardware and libraries; this machine's may be at fault, too"
                    )
                    title = "every worker finds other predictions than this machine"
                    raise ClusterError(Problem(title, facts, fix))
                return
        self._ready_at = self._ready_at or perf_counter()
        member.step, member.is_begun = "working", True
        self.workers = max(self.workers, sum(m.step == "working" for m in self._members.values()))
        self._turn(member)

    def _take(self, member: _Member, report: Report) -> None:
        now = perf_counter()
        if report.first_s is not None and self._first_at is None:
            self._first_at = now - report.first_s
        member.report = report
        for commit in report.commits:
            member.committed_rows += commit.rows_in
            if self._hand.commit(member.name, commit.shard, now):
                self._new[commit.shard] = commit
                self._run.take_note(commit)
                self._fruitless = 0
                if commit.quarantined:
                    self._budget.count(commit.quarantined)
        took = max(now - member.asked_at, 1e-3)
        member.rate = 0.5 * member.rate + 0.5 * len(report.commits) / took
        self._hand.give_back(member.name, report.returned)
        self._turn(member)

    def _turn(self, member: _Member) -> None:
        given: list[int] = []
        if not member.gives_back:
            given = self._hand.give(member.name, perf_counter(), self._working(), member.rate)
        held = self._hand.held(member.name)
        if not held:
            if member.gives_back or not self._is_wanted():
                self._dismiss(member)
            else:
                member.step = "waiting"
            return
        wait_s = min(max(TURN_S, self._working() / TURNS_A_SECOND), LONGEST_TURN_S)
        suspects = frozenset(self._hand.suspects.intersection(given))
        enough = max(1, min(len(held), depth(len(held), 1, member.rate)) // 2)
        orders = Orders(given, suspects, wait_s, enough, member.gives_back)
        self._call(member, "working", member.actor.turn.remote(orders), wait_s)

    def _call(self, member: _Member, step: str, call: Any, wait_s: float = 0.0) -> None:
        member.step, member.call, member.asked_at, member.wait_s = step, call, perf_counter(), wait_s

    # Looking after them

    def _look_around(self, now: float) -> None:
        """Start workers where there is room for them; where a node is to go, they give back their shards."""
        leaving = draining()
        nodes = self._nodes(leaving)
        for member in self._members.values():
            if member.hello is not None and member.hello.node in leaving:
                member.gives_back = True
        want = wanted(self._asked.resources)
        room = capacity(nodes, want)
        least, most = span(self._asked, room)
        staying = sum(not member.gives_back for member in self._members.values())
        target = min(most, room, self._hand.left) - len(self._refused)
        for _ in range(target - staying):
            self._hire()
        present = sum(member.hello is not None for member in self._members.values())
        least = min(least, self._hand.left)
        if present >= (least if self._ready_at is None else 1):
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        allowed_s = self._asked.wait_s if self._ready_at is None else max(GONE_S, self._asked.wait_s)
        if not nodes or room < least:
            allowed_s = self._asked.wait_s
        if now - self._alone_since >= allowed_s and not self._is_starting(now, room, least):
            raise ClusterError(unplaceable(nodes, want, least, now - self._alone_since))

    def _is_starting(self, now: float, room: int, least: int) -> bool:
        """Whether actors have, or will have, their places, and are slow to begin."""
        return self._had_room and room >= least and bool(self._members) and now - self._begun_at < GONE_S

    def _watch(self, now: float) -> None:
        """Nobody waits for an actor that doesn't answer."""
        for member in list(self._members.values()):
            if member.call is None or member.step == "coming":
                continue
            late_s = now - member.asked_at - member.wait_s
            slow = SILENT_S if member.step == "working" else GONE_S
            if late_s > slow and not member.is_silent:
                member.is_silent = True
                self._hand.mistrust(member.name)
            if late_s > slow + GONE_S:
                self._count_loss(member)
                self._dismiss(member)

    def _hire(self) -> None:
        self._born += 1
        member = _Member(f"worker-{self._born}", self._actor.remote())
        self._members[member.name] = member
        self._call(member, "coming", member.actor.hello.remote(self._setup, self._files))

    def _bury(self, member: _Member, error: Exception) -> None:
        """An actor has died, by itself or with its node."""
        said = " ".join(str(error).split())
        if member.hello is None:
            self._require_startable(said)
        if member.first_of is not None:
            self._hand.blame(member.first_of)
        self._count_loss(member)
        self._hand.lose(member.name)
        self._remove(member)
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
        if self._fruitless > max(FRUITLESS, 3 * len(self._members)):
            facts = {"died": str(self._fruitless), "the last": said[-SAID:]}
            fix = "see what Ray says; the same command goes on where this run stopped"
            raise ClusterError(Problem("workers die, one after the other, and get nothing done", facts, fix))

    def _require_startable(self, said: str) -> None:
        self._failed_starts += 1
        if "No module named 'batchonnx" in said:
            facts = {"found": "No module named 'batchonnx'"}
            fix = "install batchonnx in the cluster's image or environment, in this version"
            raise ClusterError(Problem("batchonnx isn't installed on the cluster's nodes", facts, fix))
        if self._failed_starts > FAILED_STARTS:
            facts = {"tried": str(self._failed_starts), "found": said[-SAID:]}
            raise ClusterError(Problem("workers can't be started", facts, "see what Ray says"))

    def _count_loss(self, member: _Member) -> None:
        self._lost[member.hello.host if member.hello is not None else "a node unknown"] += 1

    def _dismiss(self, member: _Member) -> None:
        import ray

        self._hand.leave(member.name)
        self._remove(member)
        ray.kill(member.actor, no_restart=True)

    def _remove(self, member: _Member) -> None:
        self._gone.append(member.report)
        del self._members[member.name]

    def _end_all(self) -> None:
        with suppress(Exception):  # Ray itself may be gone, and the run's own error is the one to tell
            for member in list(self._members.values()):
                self._dismiss(member)
            if isinstance(self._asked.workers, Span):
                _ask_autoscaler([])

    def _raise(self, trouble: BaseException, member: _Member) -> None:
        """An actor's error is the run's, told with where it came from."""
        host = member.hello.host if member.hello is not None else None
        if isinstance(trouble, BatchonnxError) and host is not None:
            told = [Problem(p.title, {**p.facts, "worker": f"on {host}"}, p.fix) for p in trouble.problems]
            raise type(trouble)(*told)
        raise trouble

    def _working(self) -> int:
        return sum(m.step == "working" for m in self._members.values())

    def _is_wanted(self) -> bool:
        return self._hand.is_needed(len(self._members) - 1)

    def _nodes(self, leaving: Sequence[str] = ()) -> list[Node]:
        import ray

        return read_nodes(ray.nodes(), leaving)

    def _require_one_machine(self, nodes: Sequence[Node]) -> None:
        """Raises ClusterError for an output that other machines wouldn't see."""
        output = self._plan.output
        if "://" in output or self._asked.shared_output or len(machines(nodes)) < 2:
            return
        facts = {"job": self._plan.job.where("output.path"), "output": output}
        facts["cluster"] = ", ".join(machines(nodes)[:5])
        fix = "name a store (s3://…), or a folder that all machines share, with engine.shared_output: true"
        raise ContractError(
            Problem("the output is a folder of one machine, the cluster has several", facts, fix)
        )

    def _progress(self) -> Progress:
        live = self._members.values()
        done = sum(commit.rows_in for commit in self._new.values())
        under_way = sum(max(0, m.report.rows_in - m.committed_rows) for m in live)
        return Progress(
            shards=len(self.commits),
            shards_total=len(self._plan.shards),
            rows_in=done + under_way,
            rows_before=sum(commit.rows_in for commit in self._run.commits.values()),
            quarantined=self._budget.spent,
            rows_total=self._plan.rows,
            elapsed_s=perf_counter() - (self._ready_at or self._begun_at),
            workers=max(1, self._working()),
            busy_s=self.busy_s,
        )


def _ask_autoscaler(bundles: list[dict[str, float]]) -> None:
    """A wish, where there is an autoscaler."""
    with suppress(Exception):  # of many kinds, where there is none
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)
