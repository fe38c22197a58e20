"""The clock of a scheduler, which tests hand in."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Protocol

LONGEST_S = 30.0
"""A machine may sleep and its clock may be set: so it is looked at again after this."""


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> datetime:
        """With zone."""
        ...

    def wait(self, until: datetime, stop: threading.Event) -> None:
        """Return when the time has come or `stop` is set."""
        ...


class WallClock:
    """The machine's own."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)

    def wait(self, until: datetime, stop: threading.Event) -> None:
        """In short stretches: the clock decides, not the time that was slept."""
        while not stop.is_set() and (left := (until - self.now()).total_seconds()) > 0:
            stop.wait(min(left, LONGEST_S))
