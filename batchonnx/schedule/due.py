"""What is due: the missed ticks that the schedule makes up, and the overlap policy while they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import takewhile

from batchonnx.engines.events import OnProgress
from batchonnx.errors import OutputBusyError
from batchonnx.ledger.outputs import output_at
from batchonnx.schedule.backfill import OnTick
from batchonnx.schedule.calendar import Tick, duration_of
from batchonnx.schedule.clock import Clock
from batchonnx.schedule.given_up import Records
from batchonnx.schedule.run_tick import Limit, TickResult, run_tick
from batchonnx.schedule.scheduled import Scheduled

ASK_AGAIN = timedelta(seconds=5)
"""How often a tick that waits for another one's run looks whether it has ended."""


def due_ticks(scheduled: Scheduled, moment: datetime) -> list[Tick]:
    """The newest tick at a moment and those before it that `catch_up` covers, without what is published or
    was given up; in order. Raises StorageError.
    """
    records = Records(scheduled)
    ticks = scheduled.calendar.until(moment, scheduled.spec.catch_up + 1)
    return [tick for tick in ticks if not scheduled.is_published(tick) and not records.is_given_up(tick)]


def run_due(
    scheduled: Scheduled,
    *,
    clock: Clock,
    stop: threading.Event,
    on_tick: OnTick,
    on_progress: OnProgress | None = None,
    moment: datetime | None = None,
) -> datetime:
    """Run what is due, in order, and then what came due meanwhile as the overlap policy has it.

    moment: what is due then, and nothing later; left out: what is due now. The schedule's turn is held, see
    `hold_turn`. A tick that fails isn't tried again. Returns the moment up to which all ticks were looked at.
    """
    records = Records(scheduled)
    looked = moment or clock.now()
    waiting = due_ticks(scheduled, looked)
    while waiting and not stop.is_set():
        tick = waiting.pop(0)
        records.start(tick)
        limit = _limit(scheduled, clock.now())
        result = run_tick(scheduled, tick, clock=clock, limit=limit, stop=stop, on_progress=on_progress)
        if result.outcome == "replaced":
            records.give_up(tick, "replaced")
        on_tick(result)
        if moment is None and not stop.is_set():
            came, looked = _came_due(scheduled, looked, clock.now())
            if scheduled.spec.overlap == "skip":
                for late in came:
                    on_tick(skip(scheduled, records, late))
            else:
                waiting += came
    return looked


def _came_due(scheduled: Scheduled, since: datetime, now: datetime) -> tuple[list[Tick], datetime]:
    return list(takewhile(lambda tick: tick.at <= now, scheduled.calendar.after(since))), now


def skip(scheduled: Scheduled, records: Records, tick: Tick) -> TickResult:
    """Give a tick up that came due while another one ran."""
    records.give_up(tick, "skipped")
    output = scheduled.output_of(tick).path
    return TickResult(tick.date, tick.at.isoformat(), "skipped", output)


@contextmanager
def hold_turn(scheduled: Scheduled, stop: threading.Event) -> Iterator[None]:
    """Be the one who runs this schedule's ticks, on whatever machine, until the block ends.

    stop: set if somebody else has taken over. Raises OutputBusyError naming who holds it, StorageError.
    """
    is_trusted = scheduled.job.job.output.single_writer == "trusted"
    with output_at(Records(scheduled).where, is_trusted=is_trusted).hold_lease(stop.set):
        yield


def run_one_tick(
    scheduled: Scheduled,
    moment: datetime,
    *,
    clock: Clock,
    stop: threading.Event,
    on_tick: OnTick,
    on_progress: OnProgress | None = None,
) -> None:
    """What another scheduler calls at each tick: run what is due at a moment, once it is this one's turn.

    Where another tick's run goes on, the newest one waits for it or is given up, as the overlap policy says.
    To replace it, it waits, too: that run ends by itself when this tick's time has come.
    """
    while not stop.is_set():
        try:
            with hold_turn(scheduled, stop):
                run_due(
                    scheduled, clock=clock, stop=stop, on_tick=on_tick, on_progress=on_progress, moment=moment
                )
                return
        except OutputBusyError:
            if scheduled.spec.overlap == "skip":
                _skip_newest(scheduled, moment, on_tick)
                return
            clock.wait(clock.now() + ASK_AGAIN, stop)


def _skip_newest(scheduled: Scheduled, moment: datetime, on_tick: OnTick) -> None:
    """Unless it is the very tick that runs: called twice, it isn't to be given up by its second call."""
    records = Records(scheduled)
    for tick in scheduled.calendar.until(moment, 1):
        if records.running() != tick.date and not scheduled.is_published(tick):
            on_tick(skip(scheduled, records, tick))


def _limit(scheduled: Scheduled, began: datetime) -> Limit | None:
    limits = []
    if scheduled.spec.deadline is not None:
        limits.append(Limit(began + duration_of(scheduled.spec.deadline), "overdue"))
    following = next(scheduled.calendar.after(began), None)
    if scheduled.spec.overlap == "replace" and following is not None:
        limits.append(Limit(following.at, "replaced"))
    return min(limits, key=lambda limit: limit.at, default=None)
