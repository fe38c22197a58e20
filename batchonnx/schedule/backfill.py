"""What is missing between two logical dates, scored in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta

from batchonnx.engines.events import OnProgress
from batchonnx.errors import Interrupted, JobFileError, Problem
from batchonnx.schedule.calendar import Tick
from batchonnx.schedule.clock import WallClock
from batchonnx.schedule.run_tick import TickResult, run_tick
from batchonnx.schedule.scheduled import Scheduled

OnTick = Callable[[TickResult], None]


def ticks_between(scheduled: Scheduled, first: str, last: str | None, now: datetime) -> list[Tick]:
    """The ticks of logical dates from `first` to `last`, both included, that have come by now.

    first, last: days (2026-11-22) or times (2026-11-22T06:30) by the clock of the schedule's zone; last left
    out: as far as there are any. Raises JobFileError for text that is neither.
    """
    begin = _moment(first, "--from", time.min)
    end = _moment(last, "--to", time.max) if last is not None else datetime.max - timedelta(days=366)
    if end < begin:
        facts = {"found": f"--from {first} --to {last}"}
        raise JobFileError(Problem("--to lies before --from", facts, "exchange them"))
    newest = now.astimezone(scheduled.calendar.zone).replace(tzinfo=None) + timedelta(days=2)
    ticks = scheduled.calendar.between(begin, min(end, newest)) if begin <= newest else []
    return [tick for tick in ticks if tick.at <= now]


def backfill(
    scheduled: Scheduled,
    ticks: list[Tick],
    *,
    parallel: int,
    stop: threading.Event,
    on_tick: OnTick,
    on_progress: OnProgress | None = None,
) -> list[TickResult]:
    """Score the ticks that aren't published, each begun in its turn, `parallel` at a time.

    on_tick: called as each ends, from one of several threads. One that fails keeps no other back.
    Raises Interrupted once `stop` is set: what was scored is kept, and the same call goes on.
    """
    clock = WallClock()
    lock = threading.Lock()

    def one(tick: Tick) -> TickResult | None:
        if stop.is_set():
            return None
        result = run_tick(scheduled, tick, clock=clock, limit=None, stop=stop, on_progress=on_progress)
        with lock:
            on_tick(result)
        return result

    with ThreadPoolExecutor(parallel) as pool:
        try:
            done = [result for result in pool.map(one, ticks) if result is not None]
        except BaseException:
            stop.set()
            raise
    if stop.is_set() and (len(done) < len(ticks) or any(result.outcome == "stopped" for result in done)):
        raise interrupted(sum(result.outcome == "published" for result in done))
    return done


def interrupted(published: int) -> Interrupted:
    """What Ctrl-C between or in ticks is told as."""
    facts = {"published": f"{published} logical dates"}
    fix = "run the same command again: it goes on where it stopped"
    return Interrupted(Problem("interrupted: what was scored is kept", facts, fix))


def _moment(text: str, option: str, day_s: time) -> datetime:
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), day_s)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return moment
    except ValueError:
        pass
    facts = {"expected": "2026-11-22, or 2026-11-22T06:30 by the clock of the schedule's zone", "found": text}
    raise JobFileError(Problem(f"{option} is no date", facts, "write a day like 2026-11-22"))
