"""Arguments and options that several commands have, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchonnx.job.spec import JobFile

job_argument = click.argument("job", type=click.Path(path_type=Path))
output_argument = click.argument("output", metavar="OUTPUT|JOB")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Fill {{ KEY }} in the job file. May be repeated.",
)
date_option = click.option(
    "--date",
    metavar="DATE",
    help="The logical date: fill {{ date }}. One of the schedule's, if there is one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")


def load_dated(job: Path, settings: tuple[str, ...], date: str | None) -> JobFile:
    """The job with its variables filled in; date: the logical date, if one was given.

    Raises JobFileError, also for a date that the job's schedule hasn't got.
    """
    from batchonnx.job.load import load_job
    from batchonnx.job.variables import parse_settings
    from batchonnx.schedule.scheduled import check_date

    if date is None:
        return load_job(job, parse_settings(settings))
    loaded = load_job(job, parse_settings((*settings, f"date={date}")))
    check_date(loaded, date)
    return loaded


def load_result(output: str, settings: tuple[str, ...], date: str | None) -> str | JobFile:
    """What OUTPUT|JOB names: a place, or the job whose result is meant.

    Raises JobFileError, click.UsageError for variables of a place.
    """
    if Path(output).suffix in (".yaml", ".yml") and "://" not in output:
        return load_dated(Path(output), settings, date)
    if settings or date is not None:
        raise click.UsageError(
            "--set and --date are for the variables of a job file: name it in place of OUTPUT"
        )
    return output
