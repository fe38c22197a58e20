"""A job with a schedule: its calendar, and for each tick its job and its output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile, Schedule
from batchonnx.ledger.output import Output
from batchonnx.ledger.outputs import output_at
from batchonnx.planning.stores import use_stores
from batchonnx.schedule.calendar import Calendar, Tick, calendar_of

DATE = "date"
"""The variable that a tick fills."""
_ANY = "LOGICAL-DATE"


@dataclass(frozen=True)
class Scheduled:
    """A job file whose `{{ date }}` ticks fill.

    job: as a template, with a word in the place of the date. root: the folder below which all its
    outputs lie, absolute or a URL. variables: all others.
    """

    path: Path
    variables: Mapping[str, str]
    job: JobFile
    spec: Schedule
    calendar: Calendar
    root: str

    @property
    def name(self) -> str:
        """The job's, as folders and Kubernetes can bear it."""
        return re.sub(r"[^a-z0-9]+", "-", self.job.job.name.lower()).strip("-") or "job"

    def job_of(self, tick: Tick) -> JobFile:
        """The job of one tick."""
        return load_job(self.path, {**self.variables, DATE: tick.date})

    def output_of(self, tick: Tick) -> Output:
        """Where a tick's result lies."""
        path = self.job.resolve(self.job.job.output.path).replace(_ANY, tick.date)
        return output_at(path, is_trusted=self.job.job.output.single_writer == "trusted")

    def is_published(self, tick: Tick) -> bool:
        """Whether a tick's result is there, complete. Raises StorageError."""
        output = self.output_of(tick)
        return output.is_marked() and output.read_manifest() is not None


def open_scheduled(path: str | Path, variables: Mapping[str, str]) -> Scheduled:
    """A job file as its schedule runs it.

    variables: all but the date. Raises JobFileError for one without a schedule, without `{{ date }}` in its
    output's path, or whose ticks would share a logical date.
    """
    path = Path(path)
    if DATE in variables:
        facts = {"job": str(path), "found": f"--set {DATE}={variables[DATE]}"}
        fix = f"leave it out; for one date: batchonnx backfill {path} --from {variables[DATE]}"
        raise JobFileError(Problem("a schedule gives {{ date }} its value itself", facts, fix))
    job = _template(path, variables)
    schedule = job.job.schedule
    if schedule is None:
        fix = 'add one, like schedule: {cron: "15 2 * * *", lag: 1d}'
        raise JobFileError(Problem("the job has no schedule", {"job": str(path)}, fix))
    if job.job.output.format in ("delta", "iceberg"):
        facts = {"job": job.where("output.format"), "found": f"format: {job.job.output.format}"}
        fix = "write to a folder for each date, or have another scheduler call: batchonnx run --date"
        raise JobFileError(Problem("what is missing of a schedule can't be told from a table", facts, fix))
    resolved = job.resolve(job.job.output.path)
    if _ANY not in resolved:
        facts = {"job": job.where("output.path"), "found": job.job.output.path}
        fix = "write {{ date }} into output.path: scores/day={{ date }}"
        raise JobFileError(Problem("all ticks would have one output", facts, fix))
    use_stores(job)
    calendar = calendar_of(schedule)
    if (twins := calendar.twins()) is not None:
        facts = {
            "job": job.where("schedule.cron"),
            "ticks": " and ".join(tick.at.astimezone(calendar.zone).isoformat() for tick in twins),
            "found": f"both are {twins[0].date}, as {calendar.form} writes it",
        }
        fix = "write schedule.date so that it tells them apart (%z is the offset), or use time_zone: UTC"
        raise JobFileError(Problem("two ticks would have the same logical date", facts, fix))
    root = resolved.partition(_ANY)[0].rpartition("/")[0]
    return Scheduled(path, dict(variables), job, schedule, calendar, root)


def _template(path: Path, variables: Mapping[str, str]) -> JobFile:
    try:
        return load_job(path, {**variables, DATE: _ANY})
    except JobFileError as error:
        unused = [problem for problem in error.problems if problem.facts.get("found") == f"--set {DATE}=…"]
        if not unused:
            raise
        fix = "write {{ date }} into input.path and output.path: scores/day={{ date }}"
        told = Problem("a job that is scheduled needs {{ date }}", {"job": str(path)}, fix)
        others = [problem for problem in error.problems if problem not in unused]
        raise JobFileError(told, *others) from None


def check_date(job: JobFile, text: str) -> None:
    """Refuse a logical date that is none of the schedule's; a job without a schedule may have any.

    Raises JobFileError.
    """
    if job.job.schedule is None:
        return
    calendar = calendar_of(job.job.schedule)
    if calendar.of_date(text) is None:
        example = next(calendar.after(datetime.fromisoformat("2026-01-01T00:00:00+00:00")))
        facts = {
            "job": job.where("schedule.cron"),
            "expected": f"the date of one of its ticks, written as {calendar.form}: {example.date}",
            "found": text,
        }
        fix = f"see which there are: batchonnx schedule next {job.path}"
        raise JobFileError(Problem(f'the schedule has no tick of "{text}"', facts, fix))
