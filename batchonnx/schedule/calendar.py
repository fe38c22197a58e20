"""Ticks of a schedule and their logical dates. No clock is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from heapq import heappop, heappush
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from batchonnx.job.spec import Schedule

DAILY, FINER = "%Y-%m-%d", "%Y-%m-%dT%H%M"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Tick:
    """One time at which a job is due.

    at: UTC. day: the logical moment, as a wall clock of the schedule's zone shows it, without zone.
    date: what `{{ date }}` stands for.
    """

    at: datetime
    day: datetime
    date: str


@dataclass(frozen=True)
class Calendar:
    """The ticks of a schedule.

    Where clocks are set forward, a tick whose time is left out comes at the first minute after; where they
    are set back, it comes once, the first time. Ticks of every hour (`*`) follow real time, in both.
    """

    cron: str
    zone: ZoneInfo
    lag: timedelta
    form: str
    start: date | None

    def after(self, moment: datetime) -> Iterator[Tick]:
        """Every tick later than a moment (with zone), in order; ends where no more come for 50 years."""
        if self._is_of_fixed_times():
            times: Iterator[datetime] = CronSim(self.cron, moment.astimezone(self.zone))
        else:
            times = self._real_times(moment)
        for at in times:
            # In an hour that comes twice, cronsim looks at its first pass whichever it begins in.
            if at.astimezone(UTC) > moment:
                yield self._tick(at)

    def _is_of_fixed_times(self) -> bool:
        """As Debian's cron tells them apart, and cronsim: neither minute nor hour begins with a star."""
        minutes, hours, *_ = self.cron.split()
        return not minutes.startswith("*") and not hours.startswith("*")

    def _real_times(self, moment: datetime) -> Iterator[datetime]:
        """Each time that a wall clock shows what the expression says: twice, where it is set back.

        Of wall times, since cronsim misses some where clocks change by half an hour (Lord Howe).
        """
        wall = moment.astimezone(self.zone).replace(tzinfo=None, fold=0) - timedelta(hours=3)
        coming: list[datetime] = []
        for shown in CronSim(self.cron, wall):
            for fold in (0, 1):
                at = shown.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
                if at.astimezone(self.zone).replace(tzinfo=None, fold=0) == shown and at not in coming:
                    heappush(coming, at)
            first = shown.replace(tzinfo=self.zone).astimezone(UTC)
            while coming and coming[0] <= first:
                yield heappop(coming).astimezone(self.zone)
        yield from (at.astimezone(self.zone) for at in sorted(coming))

    def until(self, moment: datetime, count: int) -> list[Tick]:
        """The last `count` ticks up to and with a moment, in order; none from before `start`."""
        span = timedelta(minutes=count)
        oldest = moment - timedelta(days=50 * 366)
        while True:
            begin = max(moment - span, oldest)
            found = list(self._within(begin, moment))
            if len(found) >= count or begin == oldest:
                break
            span *= 4
        return [tick for tick in found[-count:] if self.start is None or tick.day.date() >= self.start]

    def between(self, first: datetime, last: datetime) -> list[Tick]:
        """Ticks whose logical moments lie in [first, last], as wall clocks of the zone show them."""
        slack = timedelta(days=2)
        moment = first.replace(tzinfo=self.zone) + self.lag - slack
        end = (last.replace(tzinfo=self.zone) + self.lag + slack).astimezone(UTC)
        near = self._within(moment.astimezone(UTC), end)
        return [tick for tick in near if first <= tick.day <= last]

    def of_date(self, text: str) -> Tick | None:
        """The tick whose logical date is written so."""
        try:
            told = datetime.strptime(text, self.form).replace(tzinfo=None)
        except ValueError:
            return None
        has_day = "%d" in self.form or "%j" in self.form
        near = timedelta(days=1 if has_day else 366)
        found = self.between(told - near, told + near)
        return next((tick for tick in found if tick.date == text), None)

    def twins(self) -> tuple[Tick, Tick] | None:
        """Two ticks with one logical date, looked for in 2026: its first hundred, and where clocks change."""
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        windows = [list(islice(self.after(begin), 100))]
        for change in self._changes(begin):
            end = change + timedelta(days=2)
            windows.append(list(self._within(change, end)))
        for window in windows:
            seen: dict[str, Tick] = {}
            for tick in window:
                if tick.date in seen:
                    return seen[tick.date], tick
                seen[tick.date] = tick
        return None

    def _within(self, begin: datetime, end: datetime) -> Iterator[Tick]:
        return takewhile(lambda tick: tick.at <= end, self.after(begin))

    def _changes(self, begin: datetime) -> Iterator[datetime]:
        """The days of a year, less one, before its clocks are changed."""
        for number in range(366):
            day = begin + timedelta(days=number)
            if (
                day.astimezone(self.zone).utcoffset()
                != (day + timedelta(days=1)).astimezone(self.zone).utcoffset()
            ):
                yield day - timedelta(days=1)

    def _tick(self, at: datetime) -> Tick:
        """Days are counted by the calendar, hours and minutes by real time."""
        if self.lag >= timedelta(days=1):
            day = at - self.lag  # wall time: `at` has the zone
        else:
            day = (at.astimezone(UTC) - self.lag).astimezone(self.zone)
        return Tick(at.astimezone(UTC), day.replace(tzinfo=None), day.strftime(self.form))


def calendar_of(schedule: Schedule) -> Calendar:
    """A job's calendar."""
    form = schedule.date or (DAILY if _is_daily(schedule.cron) else FINER)
    return Calendar(
        cron=schedule.cron,
        zone=ZoneInfo(schedule.time_zone),
        lag=duration_of(schedule.lag) if schedule.lag is not None else timedelta(0),
        form=form,
        start=date.fromisoformat(schedule.start) if schedule.start is not None else None,
    )


def duration_of(text: str) -> timedelta:
    """30m, 6h, 1d."""
    return timedelta(**{_UNITS[text[-1]]: int(text[:-1])})


def _is_daily(cron: str) -> bool:
    """No day has two ticks: one minute of one hour."""
    minutes, hours, *_ = cron.split()
    return minutes.isdecimal() and hours.isdecimal()
