"""What is done to a run: each act disturbs it in one way, goes on with it, and looks at what came of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from time import sleep

from batchonnx.errors import DriverError
from batchonnx.rehearsal.chaos.processes import workers_of
from batchonnx.rehearsal.chaos.promise import Finding, Promise, held
from batchonnx.rehearsal.chaos.stage import LONGEST_S, Stage
from batchonnx.rehearsal.rehearse import Faults, RehearsalProcess

BUSY, STOPPED = 3, 130
"""Exit codes of a run whose output another one writes, and of one that was asked to end."""

MOST_KILLS: Mapping[str, int] = {"local": 3, "ray": 1}
"""In one round: each life on Ray begins with seconds for Ray."""

ATTEMPTS = 3
FAILING = Faults(share=0.15)


def kill_the_driver(stage: Stage, number: int) -> Iterator[Finding]:
    """`kill -9`, up to MOST_KILLS times, and the same command again until it is through.

    First while it scores, so that there is something to keep; then at any moment.
    """
    name, committed, kills, late = f"killed-{number}", 0, 0, 0
    with stage.reader(name):
        for kill in range(stage.draw.randint(1, MOST_KILLS[stage.job.job.engine.name])):
            with stage.start(name) as run:
                if kill:
                    stage.wait_for_work(run)
                    sleep(stage.any_moment())
                else:
                    stage.wait_for_work(run, partial(stage.committed, name, run))
                    sleep(stage.any_moment_of_scoring())
                if not run.is_alive:
                    late += 1
                    break
                run.kill()
                run.wait()
                kills += 1
                committed = stage.committed(name, run)
            yield stage.look_for_nothing(name, f"kill -9, round {number}")
        yield from _go_on(stage, name, committed, f"kill -9, round {number}")
    if late and not kills:
        yield Finding("resume", "not tried", "the run was over before it was killed")


def end_it(stage: Stage) -> Iterator[Finding]:
    """SIGTERM at a random moment. Sooner, if the run was over by then."""
    for attempt in range(ATTEMPTS):
        name = f"ended-{attempt}"
        with stage.start(name) as run:
            stage.wait_for_work(run)
            sleep(stage.any_moment() / 4**attempt)
            run.terminate()
            code = run.wait(LONGEST_S)
            committed = stage.committed(name, run)
        if stage.published(name) is not None:
            continue
        told = "SIGTERM ended a run with exit code 130"
        yield held("a clean end", code == STOPPED, told, f"SIGTERM: exit code {code}")
        yield stage.look_for_nothing(name, "SIGTERM")
        yield from _go_on(stage, name, committed, "SIGTERM")
        return
    yield Finding("a clean end", "not tried", "the run was over before it was asked to end")


def run_it_twice(stage: Stage) -> Iterator[Finding]:
    """A second run of the same output while the first one is held in the middle of its work.

    On a disk a lock of the kernel's keeps it out. In a bucket a lease runs out, so that it may take over from
    one that sleeps; what that does when it wakes up must change nothing.
    """
    for attempt in range(ATTEMPTS):
        name = f"twice-{attempt}"
        with stage.start(name) as first:
            if not stage.wait_for_work(first):
                continue
            os.kill(first.pid, signal.SIGSTOP)
            try:
                if stage.published(name) is not None:
                    continue
                with stage.start(name) as second:
                    code = second.wait(LONGEST_S)
            finally:
                os.kill(first.pid, signal.SIGCONT)
            yield from _after_two(stage, name, first, code)
            return
    yield Finding("one writer", "not tried", "the first run was over before the second began")


def _after_two(stage: Stage, name: str, first: RehearsalProcess, code: int) -> Iterator[Finding]:
    """What has become of two runs. code: of the second one; the first one goes on."""
    if code == 0 and "://" in stage.place:
        first.wait(LONGEST_S)
        looks = list(stage.look_at_result(name, "two runs"))
        told = "a second run took over from one that slept, which changed nothing when it woke up"
        is_so = all(finding.status == "held" for finding in looks)
        yield held("one writer", is_so, told, "two runs have both written")
        yield from looks
        return
    told = "a second run of the same output was refused, with exit code 3"
    broken = f"a second run of the same output ended with exit code {code}"
    yield held("one writer", code == BUSY, told, broken)
    yield from _through(stage, name, first, "one writer", "the first of two runs")


def kill_a_worker(stage: Stage) -> Iterator[Finding]:
    """`kill -9` of a process that scores: an actor, or one for hooks. Sooner, if the run was over by then."""
    for attempt in range(ATTEMPTS):
        name = f"worker-{attempt}"
        with stage.start(name) as run:
            if not stage.wait_for_work(run, partial(workers_of, os.getpid())):
                continue
            sleep(stage.any_moment() / 4 ** (attempt + 1))
            if not (victims := workers_of(os.getpid())):
                continue
            os.kill(stage.draw.choice(victims), signal.SIGKILL)
            yield from _through(stage, name, run, "workers may die", "a worker was killed")
            return
    yield Finding("workers may die", "not tried", "no process but the driver's own was seen to score")


def fail_requests(stage: Stage, seed: int) -> Iterator[Finding]:
    """A share of all requests is refused, or done without an answer."""
    name = "failing"
    with stage.start(name, Faults(FAILING.share, seed)) as run:
        yield from _through(stage, name, run, "requests may fail", f"{FAILING.share:.0%} of requests failed")


def _through(
    stage: Stage, name: str, run: RehearsalProcess, promise: Promise, after: str
) -> Iterator[Finding]:
    """The run has to come to its end, whatever was done to it."""
    try:
        found = run.result(LONGEST_S)
    except DriverError as error:
        problem = error.problems[0]
        yield Finding(
            promise, "broken", f"{after}: {problem.title} ({problem.facts.get('found', 'no more is known')})"
        )
        return
    lost = f", {found.summary.lost} found dead" if found.summary.lost else ""
    yield Finding(promise, "held", f"{after}{lost}; the run came to its end")
    yield from stage.look_at_result(name, after)


def _go_on(stage: Stage, name: str, committed: int, after: str) -> Iterator[Finding]:
    """The same command again: it has to do what is missing, and no more."""
    try:
        found = stage.finish(name)
    except DriverError as error:
        yield Finding("resume", "broken", f"{after}: {error.problems[0].title}")
        return
    kept = found.summary.resumed if found.summary.is_new else committed
    told = "the same command went on: no shard that was committed was scored again"
    broken = f"{after}: {committed} shards were committed, and {kept} were kept"
    yield held("resume", kept >= committed, told, broken)
    yield from stage.look_at_result(name, after)
