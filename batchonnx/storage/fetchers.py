"""The threads that wait for stores, for the whole process, and the memory that may be on its way to it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from batchonnx.storage.s3_requests import CONNECTIONS

T = TypeVar("T")

THREADS = CONNECTIONS
PROCESS_BYTES = 256 << 20
"""What all readers of a process may hold that was fetched ahead; each may hold one piece in any case."""
FLYING_BYTES = 64 << 20
"""What may be on its way at once: what was asked for first is here first, and its reader can begin."""


class _Fetchers:
    """Daemons: a request that hangs doesn't keep the process from ending.

    Tasks begin in the order of their coming, as long as FLYING_BYTES have room for the next one's.
    """

    def __init__(self) -> None:
        self._work: deque[tuple[int, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._started = self._idle = self._flying = self.bytes = 0

    def submit(self, task: Callable[[], T], size: int) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:  # handed over: who asks for the result raises it
                    future.set_exception(error)

        with self._changed:
            self._work.append((size, run))
            if self._idle < len(self._work) and self._started < THREADS:
                name = f"fetch-{self._started}"
                self._started += 1
                threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._changed.notify()
        return future

    def take(self, size: int) -> None:
        with self._changed:
            self.bytes += size

    def _serve(self) -> None:
        while True:
            size, run = self._next()
            run()
            del run
            with self._changed:
                self._flying -= size
                self._changed.notify_all()

    def _next(self) -> tuple[int, Callable[[], None]]:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(self._may_begin)
            self._idle -= 1
            size, run = self._work.popleft()
            self._flying += size
            return size, run

    def _may_begin(self) -> bool:
        return bool(self._work) and (not self._flying or self._flying + self._work[0][0] <= FLYING_BYTES)


_fetchers = _Fetchers()


def _renew() -> None:
    global _fetchers
    _fetchers = _Fetchers()


os.register_at_fork(after_in_child=_renew)


def fetch_soon(task: Callable[[], T], size: int) -> Future[T]:
    """Have a thread fetch so many bytes, in the order of the calls."""
    return _fetchers.submit(task, size)


def has_room(size: int) -> bool:
    """Whether so many bytes more may be on their way."""
    return _fetchers.bytes + size <= PROCESS_BYTES


def take_room(size: int) -> None:
    """Count bytes that are on their way; negative: that are let go."""
    _fetchers.take(size)
