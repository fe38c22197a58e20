"""The command line, killed -9 by itself at one of its requests to the store.

    python -m tests.chaos.dying_s3 before N run job.yaml     dies just before its N-th request
    python -m tests.chaos.dying_s3 after N run job.yaml      dies when it is done, and the answer unseen
    python -m tests.chaos.dying_s3 never 0 run job.yaml      lives, and says how many there were

In a test's own process, `Life` does without signals: whoever asks after its death is told that it is
dead, whatever thread it is, so that no clean-up reaches the store either.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import pytest

from batchonnx.storage.s3_requests import Requests

Call = Callable[..., Any]


class Died(BaseException):
    """What a process that has been killed would do next."""


class Life:
    """Counts requests, and ends before the one of that number; 0: lives on. asked: operation and key.

    woken: set before the request of the number `wake_at`.
    """

    def __init__(self, die_at: int = 0, wake_at: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.is_over = False
        self.woken = threading.Event()
        self._die_at, self._wake_at = die_at, wake_at
        self._lock = threading.Lock()

    @contextmanager
    def lived(self) -> Iterator[Life]:
        """All requests of this process are of this life, until the block ends; its death ends there."""
        call = Requests.call

        def ask(client: Requests, operation: str, **arguments: Any) -> Any:
            with self._lock:
                self.asked.append((operation, str(arguments.get("Key", ""))))
                self.is_over = self.is_over or len(self.asked) == self._die_at
                if len(self.asked) == self._wake_at:
                    self.woken.set()
                if self.is_over:
                    raise Died
            return call(client, operation, **arguments)

        with pytest.MonkeyPatch.context() as patch, suppress(Died):
            patch.setattr(Requests, "call", ask)
            yield self


def main(when: str, die_at: int, arguments: list[str]) -> None:
    """Run the command line until it ends, or until that request."""
    numbers, call = count(1), Requests.call
    asked = 0

    def ask(client: Requests, operation: str, **others: Any) -> Any:
        nonlocal asked
        asked = number = next(numbers)
        if (when, number) == ("before", die_at):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(client, operation, **others)
        finally:
            if (when, number) == ("after", die_at):
                os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(Requests, "call", ask)
    from batchonnx.cli import main as command_line

    try:
        command_line(arguments)
    finally:
        if when == "never":
            print(f"requests {asked}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
