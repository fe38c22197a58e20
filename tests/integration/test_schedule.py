"""Schedules with real runs on a clock that is handed in: nothing sleeps here, and days pass at once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchonnx
from batchonnx.cli import main
from batchonnx.errors import Interrupted, JobFileError, OutputBusyError, StorageError
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.schedule.due import hold_turn, run_one_tick
from batchonnx.schedule.foreground import run_schedule
from batchonnx.schedule.given_up import Records
from batchonnx.schedule.run_tick import TickResult
from batchonnx.schedule.scheduled import Scheduled, open_scheduled
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS = 20
COUNT = itertools.count()
DAYS = range(10, 30)
"""Of November 2026: those that have input."""

_during: dict[int, Callable[[], None]] = {}
"""Day -> what happens while its rows are scored."""


def watched(batch: pa.RecordBatch) -> np.ndarray:
    """The job's own encoder: time can pass in it."""
    columns = np.stack([batch.column(i).to_numpy() for i in range(3)], axis=1).astype(np.float32)
    if len(columns) and (happens := _during.pop(int(columns[0, 0]), None)) is not None:
        happens()
    return columns


@pytest.fixture(autouse=True)
def nothing_happens_by_itself() -> Iterator[None]:
    yield
    _during.clear()


class Clock:
    """Stands still, but for those who wait; from `end` on nobody waits."""

    def __init__(self, begin: str, end: str) -> None:
        self._now, self._end = moment(begin), moment(end)

    def now(self) -> datetime:
        return self._now

    def set(self, text: str) -> None:
        self._now = moment(text)

    def wait(self, until: datetime, stop: threading.Event) -> None:
        if until > self._end:
            self._now = self._end
            stop.set()
        else:
            self._now = max(self._now, until)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def day(number: int) -> str:
    return f"2026-11-{number:02d}"


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Path]:
    """Writes a daily job: at 2:15 UTC of each day, the day before is scored."""
    models.linear(tmp_path / "model.onnx")
    for number in DAYS:
        folder = tmp_path / "in" / f"day={day(number)}"
        folder.mkdir(parents=True)
        columns = {f"f{i}": np.full(ROWS, number, np.float32) for i in range(3)}
        pq.write_table(pa.table({"id": range(ROWS), **columns}), folder / "a.parquet")

    def write(schedule: Mapping[str, object] = {}, **keys: object) -> Path:
        spec = {
            "name": "Daily scores",
            "model": {"path": "model.onnx"},
            "input": {"path": "in/day={{ date }}"},
            "features": {"x": {"columns": ["f0", "f1", "f2"], "python": f"{__name__}:watched"}},
            "keep": ["id"],
            "output": {"path": "out/day={{ date }}"},
            "schedule": {"cron": "15 2 * * *", "lag": "1d", "start": day(10), **schedule},
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump({**spec, **keys}))
        return path

    return write


def scheduled(path: Path) -> Scheduled:
    return open_scheduled(path, {})


def foreground(path: Path, begin: str, end: str, clock: Clock | None = None) -> list[TickResult]:
    """What a scheduler that lives from one moment to another does."""
    results: list[TickResult] = []
    troubles: list[StorageError] = []
    run_schedule(
        scheduled(path),
        clock=clock or Clock(begin, end),
        stop=threading.Event(),
        on_tick=results.append,
        on_trouble=troubles.append,
    )
    assert not troubles
    return results


def told(results: list[TickResult]) -> list[tuple[str, str]]:
    return [(result.date[-2:], result.outcome) for result in results]


def published(path: Path) -> set[str]:
    return {folder.name for folder in (path.parent / "out").glob("day=*") if (folder / "_SUCCESS").exists()}


# --- outages and restarts


def test_after_three_days_of_outage_exactly_these_are_made_up_in_order(job: Callable[..., Path]) -> None:
    path = job({"catch_up": 7, "start": day(19)})
    before = foreground(path, "2026-11-20T02:00", "2026-11-21T12:00")
    assert told(before) == [("19", "published"), ("20", "published")]
    after = foreground(path, "2026-11-24T12:00", "2026-11-25T12:00")
    assert told(after) == [(number, "published") for number in ("21", "22", "23", "24")]
    assert all(result.predicted == ROWS for result in after)
    assert published(path) == {f"day={day(number)}" for number in range(19, 25)}
    for number in range(19, 25):
        rows = pq.read_table(path.parent / "out" / f"day={day(number)}", partitioning=None)
        assert rows["id"].to_pylist() == list(range(ROWS))


def test_the_same_on_s3(
    job: Callable[..., Path], s3: S3Server, s3_folder: str, use_store: UseStore, tmp_path: Path
) -> None:
    use_store(s3)
    store = ObjectFolder(s3_folder)
    for number in range(19, 25):
        data = (tmp_path / "in" / f"day={day(number)}" / "a.parquet").read_bytes()
        store.put(f"in/day={day(number)}/a.parquet", data)
    path = job(
        {"catch_up": 7, "start": day(19), "overlap": "skip"},
        input={"path": f"{s3_folder}/in/day={{{{ date }}}}"},
        output={"path": f"{s3_folder}/out/day={{{{ date }}}}"},
    )
    clock = Clock("2026-11-20T02:15", "2026-11-21T02:00")
    _during[19] = lambda: clock.set("2026-11-21T02:20")
    assert told(foreground(path, "", "", clock)) == [("19", "published"), ("20", "skipped")]
    assert told(foreground(path, "2026-11-24T12:00", "2026-11-24T13:00")) == [
        ("21", "published"),
        ("22", "published"),
        ("23", "published"),
    ]
    assert foreground(path, "2026-11-24T12:00", "2026-11-24T13:00") == []
    assert batchonnx.verify(f"{s3_folder}/out/day={day(23)}").predicted == ROWS


def test_the_example_job_scores_every_day_from_bucket_to_bucket(
    s3: S3Server, s3_folder: str, use_store: UseStore, jobs: Path, tmp_path: Path
) -> None:
    use_store(s3)
    store = ObjectFolder(s3_folder)
    store.put("models/digits/digits.onnx", (jobs / "models" / "digits.onnx").read_bytes())
    for number in (20, 21):
        data = (jobs / "data" / "digits.parquet").read_bytes()
        store.put(f"lake/digits/day={day(number)}/digits.parquet", data)
    path = tmp_path / "daily.yaml"
    path.write_text((jobs / "daily.yaml").read_text().replace("s3://", f"{s3_folder}/"))
    results = batchonnx.backfill(path, day(20), day(21))
    assert [(result.outcome, result.predicted) for result in results] == [("published", 1_797)] * 2
    assert told(batchonnx.backfill(path, day(20), day(21))) == [("20", "already"), ("21", "already")]
    done = CliRunner().invoke(main, ["run", str(path), "--date", day(21), "--json"])
    assert json.loads(done.stdout)["is_new"] is False


def test_a_scheduler_that_is_started_again_runs_nothing_twice(job: Callable[..., Path]) -> None:
    path = job({"catch_up": 3})
    foreground(path, "2026-11-20T02:15", "2026-11-21T12:00")
    parts = {part: part.stat().st_mtime_ns for part in (path.parent / "out").rglob("*.parquet")}
    assert foreground(path, "2026-11-21T12:00", "2026-11-21T12:30") == []
    assert {part: part.stat().st_mtime_ns for part in (path.parent / "out").rglob("*.parquet")} == parts


def test_a_published_tick_is_left_alone_even_if_its_input_has_changed_and_the_job_may_overwrite(
    job: Callable[..., Path],
) -> None:
    path = job({"catch_up": 3}, output={"path": "out/day={{ date }}", "overwrite": True})
    foreground(path, "2026-11-20T02:15", "2026-11-20T12:00")
    source = path.parent / "in" / f"day={day(19)}" / "a.parquet"
    pq.write_table(pq.read_table(source, partitioning=None).slice(3), source)
    assert foreground(path, "2026-11-20T12:00", "2026-11-20T12:30") == []


def test_without_catch_up_only_the_newest_tick_is_run(job: Callable[..., Path]) -> None:
    assert told(foreground(job(), "2026-11-24T12:00", "2026-11-24T12:00")) == [("23", "published")]


def test_more_than_catch_up_covers_is_left_to_backfill(job: Callable[..., Path]) -> None:
    path = job({"catch_up": 2})
    assert [date for date, _ in told(foreground(path, "2026-11-24T12:00", "2026-11-24T12:00"))] == [
        "21",
        "22",
        "23",
    ]


def test_a_day_that_fails_keeps_no_other_back_and_is_tried_again_at_the_next_tick(
    job: Callable[..., Path],
) -> None:
    path = job({"catch_up": 2, "start": day(19)})
    source = path.parent / "in" / f"day={day(20)}"
    source.rename(path.parent / "late")
    first = foreground(path, "2026-11-20T02:15", "2026-11-22T12:00")
    assert told(first) == [("19", "published"), ("20", "failed"), ("20", "failed"), ("21", "published")]
    assert first[1].exit_code == 3
    assert first[1].problem is not None
    (path.parent / "late").rename(source)
    assert told(foreground(path, "2026-11-22T12:00", "2026-11-22T13:00")) == [("20", "published")]


LIVES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=4)
"""Of schedulers, one after the other: hours that nobody lives, hours that one does."""


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=LIVES, catch_up=st.integers(0, 3))
def test_whenever_schedulers_live_each_due_day_is_scored_once_and_in_order(
    job: Callable[..., Path], lives: list[tuple[int, int]], catch_up: int
) -> None:
    path = job(
        {"catch_up": catch_up, "start": day(19)}, output={"path": f"out-{next(COUNT)}/day={{{{ date }}}}"}
    )
    now, done, expected, found = moment("2026-11-20T00:00"), set[int](), list[int](), list[int]()
    for dead, alive in lives:
        begin = now + timedelta(hours=dead)
        now = begin + timedelta(hours=alive)
        results = foreground(path, begin.isoformat()[:16], now.isoformat()[:16])
        assert {result.outcome for result in results} <= {"published"}
        found += [int(result.date[-2:]) for result in results]
        # At the begin and at each tick: the newest day and those that are made up.
        ticks = [moment(f"{day(number)}T02:15") for number in range(20, 31)]
        for at in [begin, *(tick for tick in ticks if begin < tick <= now)]:
            newest = [tick.day - 1 for tick in ticks if tick <= at][-catch_up - 1 :]
            expected += [number for number in newest if number not in done]
            done.update(newest)
    assert found == expected


# --- ticks that overlap


def long_run(path: Path) -> list[TickResult]:
    """Day 19's run goes on until after two more ticks."""
    clock = Clock("2026-11-20T02:15", "2026-11-22T12:00")
    _during[19] = lambda: clock.set("2026-11-22T02:20")
    return foreground(path, "", "", clock)


def test_ticks_that_come_due_during_a_run_wait_for_it(job: Callable[..., Path]) -> None:
    path = job()
    assert told(long_run(path)) == [("19", "published"), ("20", "published"), ("21", "published")]


def test_ticks_that_come_due_during_a_run_are_skipped_for_good(job: Callable[..., Path]) -> None:
    path = job({"overlap": "skip", "catch_up": 5, "start": day(19)})
    assert told(long_run(path)) == [("19", "published"), ("20", "skipped"), ("21", "skipped")]
    assert told(foreground(path, "2026-11-23T02:15", "2026-11-23T03:00")) == [("22", "published")]
    assert published(path) == {f"day={day(number)}" for number in (19, 22)}


def test_a_run_is_replaced_when_the_next_tick_comes_due(job: Callable[..., Path]) -> None:
    path = job({"overlap": "replace", "catch_up": 5, "start": day(19)})
    assert told(long_run(path)) == [("19", "replaced"), ("20", "published"), ("21", "published")]
    assert told(foreground(path, "2026-11-23T02:15", "2026-11-23T03:00")) == [("22", "published")]
    assert published(path) == {f"day={day(number)}" for number in (20, 21, 22)}


def test_backfill_scores_what_the_policy_has_given_up(job: Callable[..., Path]) -> None:
    path = job({"overlap": "skip", "start": day(19)})
    long_run(path)
    results = batchonnx.backfill(path, day(19), day(21))
    assert told(results) == [("19", "already"), ("20", "published"), ("21", "published")]


def test_a_run_that_meets_its_deadline_goes_on_at_the_next_tick(job: Callable[..., Path]) -> None:
    path = job({"deadline": "6h", "catch_up": 1, "start": day(19)})
    clock = Clock("2026-11-20T02:15", "2026-11-21T12:00")
    _during[19] = lambda: clock.set("2026-11-20T08:15")
    assert told(foreground(path, "", "", clock)) == [
        ("19", "overdue"),
        ("19", "published"),
        ("20", "published"),
    ]


# --- one at a time, and what other schedulers call


def test_a_second_scheduler_is_told_who_runs_the_schedule(job: Callable[..., Path]) -> None:
    path = job()
    with hold_turn(scheduled(path), threading.Event()), pytest.raises(OutputBusyError) as caught:
        foreground(path, "2026-11-20T02:15", "2026-11-20T03:00")
    assert str(os.getpid()) in str(caught.value)


def one_tick(path: Path, at: str, clock: Clock) -> list[TickResult]:
    results: list[TickResult] = []
    run_one_tick(scheduled(path), moment(at), clock=clock, stop=threading.Event(), on_tick=results.append)
    return results


class Handover(Clock):
    """Lets go of a turn when somebody waits for it."""

    def __init__(self, now: str, let_go: Callable[[], None]) -> None:
        super().__init__(now, "2027-01-01T00:00")
        self._let_go = let_go

    def wait(self, until: datetime, stop: threading.Event) -> None:
        self._let_go()
        super().wait(until, stop)


@pytest.mark.parametrize("overlap", ["wait", "replace"])
def test_a_tick_of_another_process_waits_for_its_turn(job: Callable[..., Path], overlap: str) -> None:
    path = job({"overlap": overlap})
    turn = hold_turn(scheduled(path), threading.Event())
    turn.__enter__()
    clock = Handover("2026-11-20T02:15", lambda: turn.__exit__(None, None, None))
    assert told(one_tick(path, "2026-11-20T02:15", clock)) == [("19", "published")]


def test_another_process_s_tick_is_skipped_unless_it_is_the_one_that_runs(
    job: Callable[..., Path],
) -> None:
    path = job({"overlap": "skip", "catch_up": 5})
    opened, clock = scheduled(path), Clock("2026-11-20T02:15", "2026-11-20T03:00")
    (running,) = opened.calendar.until(moment("2026-11-20T02:15"), 1)
    with hold_turn(opened, threading.Event()):
        Records(opened).start(running)
        assert one_tick(path, "2026-11-20T02:15", clock) == []
        assert told(one_tick(path, "2026-11-21T02:15", clock)) == [("20", "skipped")]
    assert not Records(opened).is_given_up(running)


def test_the_command_of_a_tick_runs_what_is_due_at_its_time_however_late_it_comes(
    job: Callable[..., Path],
) -> None:
    path = job({"catch_up": 1, "start": day(19)})
    done = CliRunner().invoke(main, ["schedule", "tick", str(path), "--at", "2026-11-21T02:15Z", "--json"])
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["date"] for line in done.stdout.splitlines()] == [day(19), day(20)]
    seconds = int(moment("2026-11-21T02:15").timestamp())
    again = CliRunner().invoke(main, ["schedule", "tick", str(path), "--at", f"@{seconds}", "--quiet"])
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing is due" in again.stderr


@pytest.mark.parametrize("at", ["soon", "2026-11-21T02:15", "@", "@1e9"])
def test_a_time_that_is_none_or_has_no_zone_is_refused(job: Callable[..., Path], at: str) -> None:
    done = CliRunner().invoke(main, ["schedule", "tick", str(job()), "--at", at])
    assert done.exit_code == 2
    assert "--at" in done.stderr


# --- backfill


def test_backfill_scores_what_is_missing_in_order_and_leaves_the_rest(job: Callable[..., Path]) -> None:
    path = job()
    batchonnx.run(path, {"date": day(12)})
    command = ["backfill", str(path), "--from", day(11), "--to", day(14), "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(result["date"], result["outcome"]) for result in results] == [
        (day(11), "published"),
        (day(12), "already"),
        (day(13), "published"),
        (day(14), "published"),
    ]


def test_backfill_in_parallel_gives_the_same_bytes(job: Callable[..., Path]) -> None:
    path = job()
    command = ["backfill", str(path), "--from", day(11), "--to", day(16), "--parallel", "3"]
    assert CliRunner().invoke(main, command).exit_code == 0
    out = path.parent / "out"
    apart = {part.relative_to(out): part.read_bytes() for part in out.rglob("*.parquet")}
    assert len(apart) == 6
    out.rename(path.parent / "kept")
    assert CliRunner().invoke(main, command[:-2]).exit_code == 0
    assert {part.relative_to(out): part.read_bytes() for part in out.rglob("*.parquet")} == apart


def test_backfill_ends_with_the_first_failure_s_code_and_scores_the_rest(job: Callable[..., Path]) -> None:
    path = job()
    done = CliRunner().invoke(main, ["backfill", str(path), "--from", day(8), "--to", day(10), "--quiet"])
    assert done.exit_code == 3
    assert [line.split()[1].rstrip(":,") for line in done.stdout.splitlines()] == [
        "failed",
        "failed",
        "published",
    ]


def test_a_backfill_that_is_interrupted_goes_on_with_the_same_call(job: Callable[..., Path]) -> None:
    path, stop = job(), threading.Event()
    _during[12] = stop.set
    with pytest.raises(Interrupted):
        batchonnx.backfill(path, day(11), day(13), stop=stop)
    assert published(path) == {f"day={day(11)}"}
    again = batchonnx.backfill(path, day(11), day(13))
    assert told(again) == [("11", "already"), ("12", "published"), ("13", "published")]


@pytest.mark.parametrize(
    ("first", "last"), [("yesterday", None), ("2026-11-22", "2026-11-21"), ("2026-11-22T06:00Z", None)]
)
def test_dates_that_are_none_are_refused(job: Callable[..., Path], first: str, last: str | None) -> None:
    with pytest.raises(JobFileError):
        batchonnx.backfill(job(), first, last)


def test_nothing_of_the_future_is_backfilled(job: Callable[..., Path]) -> None:
    assert batchonnx.backfill(job(), "2999-01-01") == []


# --- one date by hand


def test_run_takes_a_logical_date_and_refuses_one_that_the_schedule_hasn_t_got(
    job: Callable[..., Path],
) -> None:
    path = job()
    assert CliRunner().invoke(main, ["plan", str(path), "--date", day(20)]).exit_code == 0
    done = CliRunner().invoke(main, ["run", str(path), "--date", day(20), "--quiet"])
    assert done.exit_code == 0, done.stderr
    assert published(path) == {f"day={day(20)}"}
    refused = CliRunner().invoke(main, ["run", str(path), "--date", "20.11.2026"])
    assert refused.exit_code == 2
    assert 'no tick of "20.11.2026"' in refused.stderr


def test_when_a_job_runs_changes_nothing_of_its_result(job: Callable[..., Path]) -> None:
    first = batchonnx.plan(job(), {"date": day(20)}).fingerprint
    assert batchonnx.plan(job({"cron": "0 5 * * *"}), {"date": day(20)}).fingerprint == first


# --- jobs that can't be scheduled


def refusal(path: Path, variables: Mapping[str, str] | None = None) -> str:
    with pytest.raises(JobFileError) as caught:
        open_scheduled(path, variables or {})
    return str(caught.value)


def test_a_job_whose_ticks_would_share_an_output_is_refused(job: Callable[..., Path]) -> None:
    assert "all ticks would have one output" in refusal(job(output={"path": "out"}))
    assert "needs {{ date }}" in refusal(job(output={"path": "out"}, input={"path": "in"}))
    assert "same logical date" in refusal(job({"cron": "0 * * * *", "date": "%Y-%m-%d"}))


def test_a_job_that_can_t_be_scheduled_is_told_why(job: Callable[..., Path]) -> None:
    assert "itself" in refusal(job(), {"date": "x"})
    without = job()
    text = yaml.safe_load(without.read_text())
    del text["schedule"]
    without.write_text(yaml.safe_dump(text))
    assert "has no schedule" in refusal(without)
    table = refusal(job(output={"path": "out/{{ date }}", "format": "delta"}))
    assert "can't be told from a table" in table


# --- the real clock


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batchonnx", "schedule", "run", str(path), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_scheduler_that_is_killed_is_started_again_and_ends_cleanly(tmp_path: Path) -> None:
    """On the 1st of January: so the newest tick is the same in both lives."""
    models.linear(tmp_path / "model.onnx")
    rows = pa.table({f"f{i}": np.zeros(ROWS, np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "in.parquet")
    path = tmp_path / "job.yaml"
    spec = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out/{{ date }}"},
        "schedule": {"cron": "0 0 1 1 *", "date": "%Y", "start": "2020-01-01", "catch_up": 1},
    }
    path.write_text(yaml.safe_dump(spec))
    first = start(path)
    assert first.stdout is not None
    assert json.loads(first.stdout.readline())["outcome"] == "published"
    first.kill()
    first.communicate()
    newest = str(datetime.now(UTC).year)
    second_out = tmp_path / "out" / newest
    # So that there is something left to do, however late the kill came.
    shutil.rmtree(second_out, ignore_errors=True)
    second = start(path)
    assert second.stdout is not None
    told = json.loads(second.stdout.readline())
    second.send_signal(signal.SIGTERM)
    rest, problems = second.communicate(timeout=60)
    assert (told["date"], told["outcome"]) == (newest, "published")
    assert second.returncode == 130, problems
    assert "published" not in rest
