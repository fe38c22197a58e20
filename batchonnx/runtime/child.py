"""A process that may die, hang or eat all memory instead of this one: messages go to it and come from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from batchonnx.runtime.parent import end_with_parent


class ChildDied(Exception):
    """It is gone; the text says what has ended it: "SIGSEGV", "its own exit, with code 3"."""


class ChildSilent(Exception):
    """It has said nothing for as long as it was given."""


class Pipe:
    """Whole messages, in both directions."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in, self._out = Connection(incoming, writable=False), Connection(outgoing, readable=False)

    def send_bytes(self, data: bytes) -> None:
        """Raises BrokenPipeError if nobody reads any more."""
        self._out.send_bytes(data)

    def recv_bytes(self) -> bytes:
        """Waits. Raises EOFError if nobody writes any more."""
        return self._in.recv_bytes()

    def has_message(self, timeout_s: float) -> bool:
        """Whether `recv_bytes` has something to give or to raise within that time."""
        return self._in.poll(timeout_s)

    def close(self) -> None:
        """Close this side of both directions."""
        self._in.close()
        self._out.close()


class Child:
    """A Python process that runs one of our modules, whose `__main__` begins with `parent()`."""

    def __init__(self, module: str) -> None:
        requests_in, requests_out = os.pipe()
        answers_in, answers_out = os.pipe()
        theirs = (requests_in, answers_out)
        command = [sys.executable, "-m", module, *map(str, theirs)]
        try:
            # In a group of its own: a terminal's Ctrl-C is for us, and would be taken for a row's doing.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=theirs, process_group=0
            )
        finally:
            for end in theirs:
                os.close(end)
        self._pipe = Pipe(answers_in, requests_out)

    def send(self, data: bytes) -> None:
        """Raises ChildDied."""
        try:
            self._pipe.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError):
            raise ChildDied(self._bury()) from None

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Its next message. timeout_s: how long to wait; None: for ever. Raises ChildDied, ChildSilent."""
        try:
            if timeout_s is not None and not self._pipe.has_message(timeout_s):
                raise ChildSilent
            return self._pipe.recv_bytes()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ChildDied(self._bury()) from None

    def end(self) -> None:
        """Kill it, if it lives, and collect what is left of it."""
        self._process.kill()
        self._bury()

    def _bury(self) -> str:
        self._pipe.close()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"its own exit, with code {code}"


def parent() -> Pipe:
    """In the child: the pipe to its parent, with which it ends, whatever it is at.

    Where memory runs out, the kernel shall end this one first.
    """
    end_with_parent()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    return Pipe(int(sys.argv[1]), int(sys.argv[2]))
