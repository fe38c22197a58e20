"""Processes that begin one thing at once, and what may come of two runs that do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import pytest

import batchonnx
from batchonnx.errors import OutputBusyError
from batchonnx.job.spec import JobFile


class End(NamedTuple):
    """How a run ended: scored, found it done, refused (by a holder), failed (with an error)."""

    pid: int
    how: str
    told: str


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that begin with the imports done, so that two are really at it at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["batchonnx.driver.run", "onnxruntime", "pyarrow.parquet"])
    return context


def score(
    make_job: Callable[..., JobFile],
    arguments: tuple[Any, ...],
    options: dict[str, bool],
    env: dict[str, str],
    start: Barrier,
    told: Any,
) -> None:
    """Run a job in a process of its own, and tell how it ended."""
    os.environ.update(env)
    job = make_job(*arguments)
    start.wait(timeout=60)
    try:
        summary = batchonnx.run(job, **options)  # type: ignore[arg-type]
        told.put(End(os.getpid(), "scored" if summary.is_new else "found it done", ""))
    except OutputBusyError as error:
        told.put(End(os.getpid(), "refused", error.problems[0].facts.get("held by", "")))
    except BaseException as error:
        told.put(End(os.getpid(), "failed", repr(error)))
        raise


def race(
    processes: ForkServerContext,
    make_job: Callable[..., JobFile],
    arguments: tuple[Any, ...],
    options: dict[str, bool],
    env: dict[str, str],
) -> tuple[str, ...]:
    """Start the job twice at once: how both ended, sorted; one of them has written."""
    start, told = processes.Barrier(2), processes.Queue()
    given = (make_job, arguments, options, env, start, told)
    runs = [processes.Process(target=score, args=given) for _ in range(2)]
    for run in runs:
        run.start()
    ends: list[End] = [told.get(timeout=100) for _ in runs]
    for run in runs:
        run.join()
    how = tuple(sorted(end.how for end in ends))
    assert "scored" in how, ends
    assert "failed" not in how, ends
    if not options:
        assert how.count("scored") == 1
    for end in ends:
        if end.how == "refused" and end.told:
            (other,) = (one.pid for one in ends if one.pid != end.pid)
            assert f"process {other} on " in end.told
    return how
