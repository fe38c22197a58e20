"""A small scheduler for those who have none: it sleeps, and runs what is due.

It keeps no state of its own. What is published says what is done, the lease who is at work: so it may be
killed and started again at any moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

from batchonnx.engines.events import OnProgress
from batchonnx.errors import StorageError
from batchonnx.schedule.backfill import OnTick
from batchonnx.schedule.clock import Clock
from batchonnx.schedule.due import hold_turn, run_due
from batchonnx.schedule.scheduled import Scheduled

TRY_AGAIN = timedelta(minutes=1)
"""After a store or a disk couldn't tell what is published."""


def run_schedule(
    scheduled: Scheduled,
    *,
    clock: Clock,
    stop: threading.Event,
    on_tick: OnTick,
    on_trouble: Callable[[StorageError], None],
    on_progress: OnProgress | None = None,
) -> None:
    """Run each tick as it comes due, until `stop` is set.

    First what is due already: the newest tick and those that `catch_up` covers. A tick that failed is tried
    again at the next one, as long as `catch_up` covers it.
    on_trouble: told why nobody knows what is due; it is asked again in a minute.
    Raises OutputBusyError if another scheduler runs this schedule, StorageError.
    """
    with hold_turn(scheduled, stop):
        while not stop.is_set():
            try:
                looked = run_due(scheduled, clock=clock, stop=stop, on_tick=on_tick, on_progress=on_progress)
            except StorageError as error:
                on_trouble(error)
                clock.wait(clock.now() + TRY_AGAIN, stop)
                continue
            following = next(scheduled.calendar.after(looked), None)
            if following is None:
                return
            clock.wait(following.at, stop)
