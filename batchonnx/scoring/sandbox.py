"""Batches scored in a process that may die: how a row that kills its process is found.

Only for shards that have seen processes die: rows cross a pipe, as nowhere else.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchonnx.planning.plan import Plan
from batchonnx.planning.stores import use_stores
from batchonnx.runtime.session import ProcessDied, open_model
from batchonnx.scoring.scorer import Scorer
from batchonnx.scoring.stream import from_bytes, to_bytes


class Sandbox:
    """A process of its own for `Scorer.attempt`; started when first used, and again after each death."""

    def __init__(self, plan: Plan, batch_rows: int) -> None:
        self._setup = pickle.dumps((plan, batch_rows))
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: _Pipe | None = None

    def attempt(self, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Predictions of one batch. Raises what `Scorer.attempt` raises, and ProcessDied."""
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(to_bytes(columns))
            answer = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ProcessDied(f"the process was ended by {self._bury()}") from None
        if isinstance(answer, BaseException):
            raise answer
        return from_bytes(answer)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._bury()

    def _start(self) -> None:
        requests_in, requests_out = os.pipe()
        answers_in, answers_out = os.pipe()
        theirs = (requests_in, answers_out)
        command = [sys.executable, "-m", "batchonnx.scoring.sandbox", *map(str, theirs)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=theirs)
        finally:
            for end in theirs:
                os.close(end)
        self._pipe = _Pipe(answers_in, requests_out)
        with suppress(BrokenPipeError):  # told by the first answer that doesn't come
            self._pipe.send_bytes(self._setup)

    def _bury(self) -> str:
        """Collect what is left of the process; what ended it."""
        assert self._process is not None
        assert self._pipe is not None
        self._pipe.close()
        code = self._process.wait()
        self._process = self._pipe = None
        return signal.Signals(-code).name if code < 0 else f"its own exit, with code {code}"


class _Pipe:
    """Whole messages, in both directions."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in, self._out = Connection(incoming, writable=False), Connection(outgoing, readable=False)

    def send_bytes(self, data: bytes) -> None:
        self._out.send_bytes(data)

    def recv_bytes(self) -> bytes:
        return self._in.recv_bytes()

    def close(self) -> None:
        self._in.close()
        self._out.close()


def _serve(pipe: _Pipe) -> None:
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
                model = open_model(plan.model.path, threads=1, sha256=plan.model.digest)
                scorer = Scorer(plan, model, batch_rows)
            answer = to_bytes(scorer.attempt(columns))
        except Exception as error:  # handed over: the other end raises it
            answer = error
        pipe.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    with suppress(OSError):
        # Where memory runs out, the kernel shall end this process, not the run.
        Path("/proc/self/oom_score_adj").write_text("1000")
    _serve(_Pipe(int(sys.argv[1]), int(sys.argv[2])))
