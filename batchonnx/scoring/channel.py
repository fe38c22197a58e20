"""Stages that overlap: an iterator that is run ahead of its reader, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Closed(Exception):
    """The reader is gone."""


class _Channel(Generic[T]):
    """A queue between two threads, bounded by bytes; either side may end it."""

    def __init__(self, budget_bytes: int, size: Callable[[T], int]) -> None:
        self._budget, self._size = budget_bytes, size
        self._items: deque[T] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_closed = self._is_ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        size = self._size(item)
        with self._changed:
            # One item is always let in, or an item larger than the budget would wait for ever.
            self._changed.wait_for(
                lambda: self._is_closed or not self._items or self._bytes + size <= self._budget
            )
            if self._is_closed:
                raise _Closed
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._is_ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._is_ended)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
            yield item
            del item


def run_ahead(items: Iterator[T], budget_bytes: int, size: Callable[[T], int], name: str) -> Iterator[T]:
    """Yield what `items` yields, computed in a thread named `name`, ahead of the reader.

    At most `budget_bytes` wait in between, and at least one item. An exception of `items` is
    raised here, after the items before it. Closing this generator ends the thread and waits
    for it.
    """
    channel: _Channel[T] = _Channel(budget_bytes, size)

    def fill() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                channel.put(item)
                del item
        except _Closed:
            pass
        except BaseException as raised:  # handed over: the reader raises it
            error = raised
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            channel.end(error)

    thread = threading.Thread(target=fill, name=name, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.close()
        # Left by its reader for an error, this may be collected in the very thread that it would wait for.
        if thread is not threading.current_thread():
            thread.join()
