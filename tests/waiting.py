"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(is_so: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until something has come about, but no longer than that."""
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
