"""The threads that wait for stores, for the whole process, and the memory that may be on its way to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from batchonnx.storage.s3 import CONNECTIONS

T = TypeVar("T")

THREADS = CONNECTIONS
PROCESS_BYTES = 256 << 20
"""What all readers of a process may hold that was fetched ahead; each may hold one piece in any case."""


class _Fetchers:
    """Daemons: a request that hangs doesn't keep the process from ending."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = self.bytes = 0

    def submit(self, task: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:  # handed over: who asks for the result raises it
                    future.set_exception(error)

        self._work.put(run)
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._started < THREADS:
                    name = f"fetch-{self._started}"
                    self._started += 1
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def take(self, size: int) -> None:
        with self._lock:
            self.bytes += size

    def _serve(self) -> None:
        while True:
            run = self._work.get()
            run()
            del run
            self._idle.release()


_fetchers = _Fetchers()


def _renew() -> None:
    global _fetchers
    _fetchers = _Fetchers()


os.register_at_fork(after_in_child=_renew)


def fetch_soon(task: Callable[[], T]) -> Future[T]:
    """Have a thread do it, in the order of the calls."""
    return _fetchers.submit(task)


def has_room(size: int) -> bool:
    """Whether so many bytes more may be on their way."""
    return _fetchers.bytes + size <= PROCESS_BYTES


def take_room(size: int) -> None:
    """Count bytes that are on their way; negative: that are let go."""
    _fetchers.take(size)
