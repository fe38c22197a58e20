"""Actors that score nothing: they say of each shard, at once or after a while, that it is done.

To look at what the driver's side of a run costs, and nothing else.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from time import perf_counter, sleep
from typing import Any

from batchonnx.engines.ray.actor import Answer, Entered, First, Hello, Orders, Report, versions
from batchonnx.ledger.process import this_machine
from batchonnx.ledger.records import Commit, ShardRecord
from batchonnx.scoring.probe import Lesson
from tests.benchmarks.taken_up import make_commit

WORKERS, STEADY_SHARDS_S = 64, 100

SOURCES = (("/data/in/000000.parquet", (0,), 0, 200),)


class NoOp:
    """Has the methods of `Actor`; commits are as large as real ones. takes_s: one shard, after another."""

    takes_s = 0.0

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._rows = 0

    def hello(self) -> Hello:
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Hello(socket.gethostname(), this_machine(), node, os.getpid(), versions())

    def enter(self, setup: Sequence[Any], files: Sequence[Any]) -> Entered:
        return Entered()

    def first(self, shard: int, measured: int | None) -> First:
        return First(Lesson(1024, None))

    def begin(self, lesson: Lesson, rows: bytes | None) -> Answer:
        return Answer()

    def turn(self, orders: Orders) -> Report:
        now = perf_counter()
        for shard in orders.shards:
            begin = max(now, self._ends[-1][0]) if self._ends else now
            self._ends.append((begin + self.takes_s, shard))
        until = now + orders.wait_s
        if len(self._ends) >= orders.enough:
            until = min(until, self._ends[orders.enough - 1][0])
        sleep(max(0.0, until - perf_counter()))
        made: list[Commit] = []
        while self._ends and self._ends[0][0] <= perf_counter():
            shard = self._ends.popleft()[1]
            made.append(make_commit(ShardRecord(shard, f"part-{shard:06}-3f9a1c07.parquet", SOURCES)))
        self._rows += sum(commit.rows_in for commit in made)
        return Report(commits=made, rows_in=self._rows)


class Steady(NoOp):
    """All workers together do STEADY_SHARDS_S."""

    takes_s = WORKERS / STEADY_SHARDS_S
