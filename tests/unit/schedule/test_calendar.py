"""Ticks and logical dates: where clocks change, and wherever one begins to look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from batchonnx.job.spec import Schedule
from batchonnx.schedule.calendar import Calendar, Tick, calendar_of

YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def calendar(cron: str, zone: str = "Europe/Berlin", **keys: object) -> Calendar:
    return calendar_of(Schedule.model_validate({"cron": cron, "time_zone": zone, **keys}))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


CHANGES = [
    # Berlin's clocks go from 2:00 to 3:00 on 29 March 2026, and from 3:00 to 2:00 on 25 October.
    ("30 1 * * *", "2026-03-29T00:00Z", "2026-03-29T00:30Z", "before the gap"),
    ("30 2 * * *", "2026-03-29T00:00Z", "2026-03-29T01:00Z", "in the gap: the first minute after"),
    ("0 3 * * *", "2026-03-29T00:00Z", "2026-03-29T01:00Z", "at the gap's end"),
    ("30 3 * * *", "2026-03-29T00:00Z", "2026-03-29T01:30Z", "after the gap"),
    ("30 1 * * *", "2026-10-24T22:00Z", "2026-10-24T23:30Z", "before the hour that comes twice"),
    ("30 2 * * *", "2026-10-24T22:00Z", "2026-10-25T00:30Z", "in it: the first time"),
    ("30 2 * * *", "2026-10-25T00:30Z", "2026-10-26T01:30Z", "in it: only the first time"),
    ("30 2 * * *", "2026-10-25T01:10Z", "2026-10-26T01:30Z", "begun in its second pass"),
    ("30 3 * * *", "2026-10-24T22:00Z", "2026-10-25T02:30Z", "after it"),
    ("30 * * * *", "2026-10-25T00:30Z", "2026-10-25T01:30Z", "every hour follows real time, twice here"),
    ("30 * * * *", "2026-03-29T00:30Z", "2026-03-29T01:30Z", "every hour follows real time, none lost"),
]


@pytest.mark.parametrize(("cron", "after", "expected", "why"), CHANGES, ids=[case[-1] for case in CHANGES])
def test_a_tick_where_clocks_change(cron: str, after: str, expected: str, why: str) -> None:
    assert next(calendar(cron).after(moment(after))).at == moment(expected), why


def test_each_day_has_one_tick_and_one_date_all_year() -> None:
    ticks = list(islice(calendar("30 2 * * *").after(YEAR), 365))
    days = [tick.date for tick in ticks]
    assert days == [f"{(YEAR + timedelta(days=number)).date()}" for number in range(365)]


def test_the_logical_date_lags_by_the_calendar_also_where_a_day_has_23_or_25_hours() -> None:
    found = calendar("15 0 * * *", lag="1d")
    ticks = takewhile(
        lambda tick: tick.at < moment("2026-10-28T00:00Z"), found.after(moment("2026-10-23T12:00Z"))
    )
    assert [tick.date for tick in ticks] == [
        "2026-10-23",
        "2026-10-24",
        "2026-10-25",
        "2026-10-26",
        "2026-10-27",
    ]


def test_hours_of_lag_are_real_hours() -> None:
    (tick,) = islice(calendar("10 * * * *", "UTC", lag="1h").after(moment("2026-11-22T06:00Z")), 1)
    assert tick == Tick(moment("2026-11-22T06:10Z"), datetime(2026, 11, 22, 5, 10), "2026-11-22T0510")


def test_nothing_lies_before_the_start() -> None:
    found = calendar("15 2 * * *", lag="1d", start="2026-11-20", catch_up=5)
    ticks = found.until(moment("2026-11-23T12:00Z"), 6)
    assert [tick.date for tick in ticks] == ["2026-11-20", "2026-11-21", "2026-11-22"]


def test_a_schedule_that_is_rare_is_found_all_the_same() -> None:
    ticks = calendar("0 0 29 2 *").until(moment("2026-11-23T12:00Z"), 3)
    assert [tick.date for tick in ticks] == ["2016-02-29", "2020-02-29", "2024-02-29"]


def test_between_has_both_ends_and_means_logical_dates() -> None:
    found = calendar("15 2 * * *", lag="1d")
    ticks = found.between(datetime(2026, 11, 20), datetime(2026, 11, 22, 23, 59))
    assert [tick.date for tick in ticks] == ["2026-11-20", "2026-11-21", "2026-11-22"]


@pytest.mark.parametrize(
    ("keys", "shared"),
    [
        ({"cron": "30 2 * * *"}, None),
        ({"cron": "30 * * * *"}, "2026-10-25T0230"),
        ({"cron": "30 * * * *", "date": "%Y-%m-%dT%H%M%z"}, None),
        ({"cron": "30 * * * *", "zone": "UTC"}, None),
        ({"cron": "0 0 * * *", "date": "%Y-%m"}, "2026-01"),
        ({"cron": "0 0 1 * *", "date": "%Y-%m"}, None),
        ({"cron": "0 0,12 * * *", "date": "%Y-%m-%d"}, "2026-01-02"),
        ({"cron": "*/30 * * * *", "zone": "Australia/Lord_Howe"}, "2026-04-05T0130"),
    ],
)
def test_two_ticks_of_one_date_are_found(keys: dict[str, str], shared: str | None) -> None:
    twins = calendar(**keys).twins()
    assert (twins[0].date if twins is not None else None) == shared
    assert twins is None or twins[0].at < twins[1].at


CRONS = st.one_of(
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    st.builds(
        "{} {}-{} * * {}".format, st.integers(0, 59), st.integers(0, 3), st.integers(3, 23), st.integers(0, 6)
    ),
    st.builds("*/{} * * * *".format, st.integers(7, 59)),
    st.builds("{} */{} * * *".format, st.integers(0, 59), st.integers(2, 12)),
    st.builds("{},{} 1-3 * * *".format, st.integers(0, 29), st.integers(30, 59)),
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
MOMENTS = st.one_of(
    # Near Berlin's, New York's and Lord Howe's changes, and anywhere.
    *(
        st.integers(-3_000, 3_000).map(lambda minutes, day=day: moment(day) + timedelta(minutes=minutes))
        for day in ("2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-03-08T07:00Z", "2026-11-01T06:00Z")
    ),
    *(
        st.integers(-3_000, 3_000).map(lambda minutes, day=day: moment(day) + timedelta(minutes=minutes))
        for day in ("2026-04-04T15:00Z", "2026-10-03T15:30Z")
    ),
    st.integers(0, 365 * 24 * 60).map(lambda minutes: YEAR + timedelta(minutes=minutes)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["*/20 * * * *", "0 */3 * * *", "15 */2 * * *", "* 1-3 * * *"]), ZONES, MOMENTS)
def test_ticks_of_every_hour_are_all_times_at_which_a_clock_shows_them(
    cron: str, zone: str, begin: datetime
) -> None:
    """Against each minute of two days, one by one."""
    begin = begin.replace(second=0)
    shown = CronSim(cron, begin)
    expected = [
        at
        for at in (begin + timedelta(minutes=n) for n in range(1, 2_880))
        if (local := at.astimezone(ZoneInfo(zone))).minute in shown.minutes and local.hour in shown.hours
    ]
    found = takewhile(
        lambda tick: tick.at < begin + timedelta(minutes=2_880), calendar(cron, zone).after(begin)
    )
    assert [tick.at for tick in found] == expected


@settings(max_examples=150, deadline=None)
@given(CRONS, ZONES, MOMENTS, st.integers(0, 4_000))
def test_ticks_are_the_same_wherever_one_begins_to_look(
    cron: str, zone: str, begin: datetime, later: int
) -> None:
    found = calendar(cron, zone)
    end = begin + timedelta(days=4)
    far = list(takewhile(lambda tick: tick.at <= end, found.after(begin)))
    assert [tick.at for tick in far] == sorted({tick.at for tick in far})
    middle = begin + timedelta(minutes=later)
    near = list(takewhile(lambda tick: tick.at <= end, found.after(middle)))
    assert near == [tick for tick in far if tick.at > middle]


@settings(max_examples=80, deadline=None)
@given(CRONS, ZONES, MOMENTS, st.integers(1, 9), st.sampled_from([None, "30m", "1h", "1d", "7d"]))
def test_what_lies_behind_and_ahead_of_a_moment_fit_together(
    cron: str, zone: str, now: datetime, count: int, lag: str | None
) -> None:
    found = calendar(cron, zone, lag=lag)
    behind = found.until(now, count)
    assert len(behind) == count
    assert all(tick.at <= now for tick in behind)
    assert list(islice(found.after(behind[0].at), count - 1)) == behind[1:]
    following = next(found.after(now))
    assert next(found.after(behind[-1].at)) == following


@settings(max_examples=60, deadline=None)
@example("0 */3 * * *", "Australia/Lord_Howe", moment("2026-04-04T15:30Z"), None)
@given(CRONS, ZONES, MOMENTS, st.sampled_from([None, "2h", "1d"]))
def test_a_date_leads_back_to_its_tick(cron: str, zone: str, now: datetime, lag: str | None) -> None:
    found = calendar(cron, zone, lag=lag, date="%Y-%m-%dT%H%M%z")
    assume(found.twins() is None)  # such schedules are refused
    tick = next(found.after(now))
    assert found.of_date(tick.date) == tick
    assert found.of_date("yesterday") is None
