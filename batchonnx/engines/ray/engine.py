"""The Ray engine: actors with a worker each, and a driver that hands out shards and looks after them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from batchonnx.engines.engine import Phases, interrupted
from batchonnx.engines.events import ShardCommitted, Tell
from batchonnx.engines.ray.actor import Setup, model_files
from batchonnx.engines.ray.beginning import Beginning
from batchonnx.engines.ray.dispatch import Dispatch
from batchonnx.engines.ray.first_rows import FirstRows
from batchonnx.engines.ray.handout import HandOut
from batchonnx.engines.ray.losses import Losses
from batchonnx.engines.ray.member import Member
from batchonnx.engines.ray.model_cache import MODEL
from batchonnx.engines.ray.nodes import cluster_nodes
from batchonnx.engines.ray.placement import Node, machines
from batchonnx.engines.ray.staff import Staff
from batchonnx.errors import ContractError, Problem
from batchonnx.ledger.output import Run
from batchonnx.ledger.records import Commit
from batchonnx.planning.plan import Plan
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.session import Model
from batchonnx.runtime.signature import ModelSignature
from batchonnx.scoring.probe import Lesson
from batchonnx.scoring.progress import STAGES, DeviceUse, Progress
from batchonnx.scoring.quarantine import ErrorBudget

TICK_S, LOOK_S = 0.2, 2.0


class RayEngine:
    """Scores a plan's shards in actors of a Ray cluster; see `engine.Engine`.

    model: the driver's own, for the canary. lesson: what the run's first rows have taught in a former life.
    measured: rows in one call, as an earlier run has measured. on_lesson: told, once, what is new.
    beginning: the cluster, reached while the plan was made.
    """

    name = "ray"
    devices: tuple[DeviceUse, ...] = ()

    def __init__(
        self,
        plan: Plan,
        model: Model,
        run: Run,
        budget: ErrorBudget,
        lesson: Lesson | None,
        measured: int | None,
        on_lesson: Callable[[Lesson], None],
        beginning: Beginning,
    ) -> None:
        self._beginning = beginning
        self._plan, self._run, self._budget = plan, run, budget
        self._asked = plan.job.job.engine
        open_shards = [shard for shard in plan.shards if shard.number not in run.commits]
        self._hand = HandOut(open_shards, run.suspects)
        self._losses = Losses(plan, self._hand)
        self._staff = Staff(self._asked, self._hand, self._losses)
        self._first_rows = FirstRows(plan, model, lesson, measured, on_lesson)
        self._dispatch = Dispatch(self._hand, self._staff, self._losses, self._first_rows, run, budget)
        before = [run.commits[shard.number] for shard in plan.shards if shard.number in run.commits]
        self._before, self._rows_before = len(before), sum(commit.rows_in for commit in before)
        self._rows_total, self._reads_ahead = plan.rows, plan.listing.is_remote
        # Ray tells of each answer: asking it of all of them took half of the driver's time.
        self._answers: SimpleQueue[Member] = SimpleQueue()
        self.threads = self._asked.resources.num_cpus

    # What came of it

    @property
    def workers(self) -> int:
        """The most there were at the same time."""
        return self._staff.most_working

    @property
    def commits(self) -> list[Commit]:
        """Of all shards that are done, in former lives of the run or now."""
        return [*self._run.commits.values(), *self._dispatch.made.values()]

    @property
    def lesson(self) -> Lesson | None:
        """What the first rows taught; None if none had to be scored."""
        return self._first_rows.lesson

    @property
    def busy_s(self) -> dict[str, float]:
        """Stage -> seconds, summed over all workers."""
        reports = self._staff.reports
        return {stage: sum(report.busy_s.get(stage, 0.0) for report in reports) for stage in STAGES}

    @property
    def calls(self) -> int:
        """Calls of the model, as far as was told by actors that died."""
        return sum(report.calls for report in self._staff.reports)

    @property
    def halved(self) -> int:
        """Batches that needed too much memory and were scored in pieces."""
        return sum(report.halved for report in self._staff.reports)

    @property
    def first_at(self) -> float | None:
        """When the first batch was predicted, by this machine's perf_counter."""
        return self._dispatch.first_at

    @property
    def apart(self) -> int:
        """Shards scored in a process of their own."""
        return len(self._hand.suspects)

    @property
    def lost(self) -> int:
        """Actors that died."""
        return self._losses.died

    @property
    def copied(self) -> int:
        """Shards that a second worker was given."""
        return self._hand.copied

    @property
    def phases(self) -> Phases:
        """The cluster's start, the first actor's, and scoring."""
        begin, ready = self._beginning, self._staff.ready_at
        here_at = begin.here_at if begin.here_at is not None else self._staff.here_at
        return Phases(
            cluster_s=_between(begin.begun_at, begin.reached_at),
            actors_s=_between(begin.reached_at, here_at),
            start_s=_between(begin.begun_at, ready),
            scoring_s=_between(ready, self._dispatch.last_at),
        )

    @property
    def retries(self) -> int:
        """Requests to a store that workers had to send again, as far as was told by those that died."""
        return sum(report.retries for report in self._staff.reports)

    @property
    def notes(self) -> tuple[str, ...]:
        """What workers tell of their devices, and which died or were refused, by their hosts."""
        return (*self._dispatch.notes, *self._losses.notes)

    # The run

    def run(
        self,
        stop: threading.Event,
        drain: threading.Event,
        tell: Tell | None,
    ) -> None:
        """Score every open shard; see `engine.Engine`. Raises ClusterError as well."""
        if not self._hand.left:
            return
        try:
            try:
                hiring = self._beginning.hiring()
                self._require_one_machine(cluster_nodes())
                self._dispatch.entry = self._entry()
                self._staff.open(hiring)
                self._loop(stop, drain, tell)
            finally:
                self._staff.end()
                self._beginning.close()
        finally:
            self._run.end()

    def _entry(self) -> tuple[list[Any], list[Any]]:
        """References to what an actor enters the run with. Raises ContractError for another model."""
        import ray

        plan, budget = self._plan, self._budget
        files = {model.digest: _unchanged(model) for model in plan.model.files}
        setup = Setup(
            plan,
            self._run.ticket(),
            self.threads,
            plan.job.job.errors.max_bad_rows,
            budget.rows_total,
            budget.spent,
            frozenset(self._hand.suspects),
        )
        held = {digest: model_files(file.local, file.external, MODEL) for digest, file in files.items()}
        return [ray.put(setup)], [ray.put(held)]

    def _loop(
        self,
        stop: threading.Event,
        drain: threading.Event,
        tell: Tell | None,
    ) -> None:
        looked_at = ticked_at = float("-inf")
        while self._hand.left:
            if drain.is_set():
                self._hand.close()
            if stop.is_set() or self._hand.is_drained:
                raise interrupted(len(self.commits), len(self._plan.shards))
            now = perf_counter()
            if now - looked_at >= LOOK_S or self._staff.is_short:
                looked_at = now
                self._staff.look_around(now)
            for member in self._answered():
                self._dispatch.go_on(member)
            self._staff.watch(perf_counter())
            is_tick = perf_counter() - ticked_at >= TICK_S
            for member in self._staff.members:
                # Who has begun and has no shard left asks for others' late ones: not at each answer.
                if member.step == "waiting" and (is_tick or not member.is_begun):
                    self._dispatch.use(member)
            if is_tick:
                ticked_at = perf_counter()
                self._report(tell)
        self._report(tell)

    def _answered(self) -> list[Member]:
        """Whoever has answered, or died; waits for one, for a while."""
        for member in self._staff.members:
            if member.call is not None and member.answer is None:
                member.listen(self._answers.put)
        told = []
        with suppress(Empty):
            told.append(self._answers.get(timeout=TICK_S))
            while True:
                told.append(self._answers.get_nowait())
        # One who was dismissed meanwhile may still have answered.
        return [member for member in told if member.has_answered and self._staff.has(member)]

    def _require_one_machine(self, nodes: Sequence[Node]) -> None:
        """Raises ContractError for an output that other machines wouldn't see."""
        output = self._plan.output
        if "://" in output or self._asked.shared_output or len(machines(nodes)) < 2:
            return
        facts = {"job": self._plan.job.where("output.path"), "output": output}
        facts["cluster"] = ", ".join(machines(nodes)[:5])
        fix = "name a store (s3://…), or a folder that all machines share, with engine.shared_output: true"
        raise ContractError(
            Problem("the output is a folder of one machine, the cluster has several", facts, fix)
        )

    def _report(self, tell: Tell | None) -> None:
        new, self._dispatch.untold = self._dispatch.untold, []
        if tell is not None:
            for commit in new:
                tell(ShardCommitted(commit))
            tell(self._progress())

    def _progress(self) -> Progress:
        under_way = sum(max(0, m.report.rows_in - m.committed_rows) for m in self._staff.members)
        return Progress(
            shards=self._before + len(self._dispatch.made),
            shards_total=len(self._plan.shards),
            rows_in=self._dispatch.made_rows + under_way,
            rows_before=self._rows_before,
            quarantined=self._budget.spent,
            rows_total=self._rows_total,
            elapsed_s=perf_counter() - (self._staff.ready_at or self._beginning.begun_at),
            workers=max(1, self._staff.working),
            busy_s=self.busy_s,
            reads_ahead=self._reads_ahead,
            hosts=dict(Counter(m.hello.host for m in self._staff.members if m.hello is not None)),
            memory=sum(member.report.memory for member in self._staff.members),
            retries=self.retries,
            lost=self.lost,
            copied=self.copied,
        )


def _unchanged(model: ModelSignature) -> ModelFile:
    """Its file, as it was planned with. Raises ContractError."""
    file = find_model(model.path)
    if file.digest != model.digest:
        facts = {"model": model.path, "planned": model.digest, "found": file.digest}
        raise ContractError(Problem("the model has changed meanwhile", facts, "run the same command again"))
    return file


def _between(earlier: float | None, later: float | None) -> float | None:
    return later - earlier if earlier is not None and later is not None else None
