"""Batches scored in a process that may die: how a row that kills its process is found.

Only for shards that have seen processes die: rows cross a pipe, as nowhere else.
"""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa

from batchonnx.planning.plan import Plan
from batchonnx.planning.stores import use_stores
from batchonnx.runtime.chain import open_again
from batchonnx.runtime.child import Child, ChildDied, Pipe, parent
from batchonnx.runtime.session import ProcessDied
from batchonnx.scoring.scorer import Scorer
from batchonnx.scoring.stream import from_bytes, to_bytes


class Sandbox:
    """A process of its own for `Scorer.attempt`; started when first used, and again after each death."""

    def __init__(self, plan: Plan, batch_rows: int) -> None:
        self._setup = pickle.dumps((plan, batch_rows))
        self._child: Child | None = None

    def attempt(self, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Predictions of one batch. Raises what `Scorer.attempt` raises, and ProcessDied."""
        try:
            if self._child is None:
                self._child = Child("batchonnx.scoring.sandbox")
                self._child.send(self._setup)
            self._child.send(to_bytes(columns))
            answer = pickle.loads(self._child.receive())
        except ChildDied as death:
            self._child = None
            raise ProcessDied(f"the process was ended by {death}") from None
        if isinstance(answer, BaseException):
            raise answer
        return from_bytes(answer)

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = None


def _serve(pipe: Pipe) -> None:
    """Score batches until the other end is closed."""
    plan, batch_rows = pickle.loads(pipe.recv_bytes())
    use_stores(plan.job)
    scorer: Scorer | None = None
    while True:
        try:
            columns = from_bytes(pipe.recv_bytes())
        except EOFError:
            return
        answer: Any
        try:
            if scorer is None:
                model = open_again(plan.model, 1, plan.device)
                scorer = Scorer(plan, model, batch_rows)
            answer = to_bytes(scorer.attempt(columns))
        except Exception as error:  # handed over: the other end raises it
            answer = error
        pipe.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    _serve(parent())
