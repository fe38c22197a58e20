"""Commands about jobs: init, plan, run, schema."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from batchonnx.cli.logs import show_log
from batchonnx.cli.look import write
from batchonnx.cli.options import date_option, job_argument, json_option, load_dated, set_option
from batchonnx.cli.screen import complain, say
from batchonnx.cli.seconds import SECONDS
from batchonnx.cli.stopping import cleaning_up, stopping
from batchonnx.errors import OutputExistsError, Problem, StorageError

if TYPE_CHECKING:
    from batchonnx.engines.events import Tell


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the job here, not to the screen.")
@click.option("--then", multiple=True, help="A model that feeds on the ones before; may be repeated.")
@click.option("--output", help="Folder for the predictions, relative to the job file.")
@json_option
def init(
    model: str, data: str, out: Path | None, then: tuple[str, ...], output: str | None, as_json: bool
) -> None:
    """Write a job file that runs, guessed from MODEL's signature and DATA's schema.

    \b
    Examples:
      batchonnx init model.onnx data/ -o job.yaml
      batchonnx init model.onnx 'data/*.parquet' > job.yaml
      batchonnx init encoder.onnx data/ --then head.onnx
    """
    from batchonnx import api

    if out is not None and out.exists():
        facts = {"file": str(out)}
        raise OutputExistsError(Problem("the job file exists already", facts, "name another, or remove it"))
    text = api.init(model, data, then=then, output=output, folder=out.parent if out is not None else Path())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        complain(f"wrote {out}; next: batchonnx plan {out}")
    if as_json:
        say(json.dumps({"job": text, "file": str(out) if out is not None else None}))
    elif out is None:
        say(text, nl=False)


@click.command()
@job_argument
@set_option
@date_option
@click.option("--probe", is_flag=True, help="Try a few rows, and say what all of them will take.")
@click.option(
    "--budget",
    type=SECONDS,
    metavar="TIME",
    help="With --probe: how long the larger try scores; 5s if left out.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --probe: a YAML table of prices, for what the run costs.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    help="With --probe, in place of the job's own: what to try.",
)
@json_option
def plan(
    job: Path,
    settings: tuple[str, ...],
    date: str | None,
    probe: bool,
    budget: float | None,
    prices: Path | None,
    engine: Literal["local", "ray"] | None,
    as_json: bool,
) -> None:
    """Say what a run of JOB will do; reads no row, runs no model, unless you ask it to --probe.

    Checks model against data, and reports every mismatch at once.

    With --probe it runs a sample of the job's own rows, in a scratch folder beside the output, and tells how
    long the whole will take, with how much memory, how many requests, and at what cost.

    \b
    Examples:
      batchonnx plan jobs/score.yaml
      batchonnx plan jobs/score.yaml --set day=2026-11-22 --json
      batchonnx plan jobs/score.yaml --probe --prices prices.yaml
    """
    if not probe and (asked := [name for name, told in _told(budget, prices, engine) if told is not None]):
        raise click.UsageError(f"--{asked[0]} goes with --probe")

    from batchonnx import api
    from batchonnx.report.plan_view import format_plan, plan_as_dict

    loaded = load_dated(job, settings, date)
    made = api.plan(loaded)
    if not probe:
        say(json.dumps(plan_as_dict(made), indent=1) if as_json else format_plan(made))
        return
    from batchonnx.rehearsal.forecast import PROBE_S
    from batchonnx.rehearsal.forecast_view import forecast_as_dict, format_forecast
    from batchonnx.rehearsal.prices import read_prices

    if not as_json:
        say(format_plan(made))
    table = read_prices(prices) if prices is not None else None
    with cleaning_up():
        found = api.forecast(loaded, prices=table, budget_s=budget or PROBE_S, engine=engine)
    told = {**plan_as_dict(made), "forecast": forecast_as_dict(found)}
    say(json.dumps(told, indent=1) if as_json else format_forecast(found))


@click.command()
@job_argument
@set_option
@date_option
@click.option(
    "--overwrite", is_flag=True, default=None, help="Replace a former result when this one is complete."
)
@click.option("--fresh", is_flag=True, help="Start over: leave an unfinished run, replace a former result.")
@click.option(
    "--incremental", is_flag=True, help="Score only files that are new or changed since the published result."
)
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), help="In place of the job's own: where workers live."
)
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Write a page on the result, HTML."
)
@click.option(
    "--json-lines",
    "lines",
    metavar="FILE",
    help="Write what happens as JSON, a line each, to FILE; -: to standard output.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="A log in place of the live view.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve metrics for Prometheus while the run lasts.",
)
@json_option
def run(
    job: Path,
    settings: tuple[str, ...],
    engine: Literal["local", "ray"] | None,
    date: str | None,
    overwrite: bool | None,
    fresh: bool,
    incremental: bool,
    quiet: bool,
    report: Path | None,
    lines: str | None,
    log_format: Literal["text", "json"] | None,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    """Score every row of JOB and publish the result, all or nothing.

    In this process, or on a Ray cluster: RAY_ADDRESS's, the job's, or one that lives as long as the run.

    The same command again goes on where a run was stopped, by whatever. Ctrl-C stops cleanly:
    nothing is published, what was scored is kept. A second Ctrl-C ends at once.

    \b
    Examples:
      batchonnx run jobs/score.yaml
      batchonnx run jobs/filetypes.yaml --set dir=/usr/share
      batchonnx run jobs/score.yaml --json | jq .predicted
      batchonnx run jobs/score.yaml --incremental
      batchonnx run jobs/score.yaml --engine ray
      batchonnx run jobs/daily.yaml --date 2026-11-22
      batchonnx run jobs/score.yaml --report score.html
      batchonnx run jobs/score.yaml --json-lines - | jq .event
      batchonnx run jobs/score.yaml --log-format json
      batchonnx run jobs/score.yaml --metrics-port 9464
    """
    if lines == "-" and as_json:
        raise click.UsageError("--json and --json-lines - both want standard output.")
    if log_format is not None:
        show_log(log_format)
    stop = threading.Event()
    with stopping(stop):
        from batchonnx import api
        from batchonnx.report.live import live_view
        from batchonnx.report.page.make import require_pictures
        from batchonnx.report.preview import format_preview
        from batchonnx.report.summary import format_summary, summary_as_dict

        if report is not None:
            require_pictures()  # before the work, not after it
        is_silent = quiet or as_json or lines == "-"
        with open_lines(lines) as tell, live_view(quiet=quiet or as_json or log_format is not None) as show:
            summary = api.run(
                load_dated(job, settings, date),
                on_progress=show,
                on_event=tell,
                stop=stop,
                overwrite=overwrite,
                fresh=fresh,
                incremental=incremental,
                engine=engine,
                metrics_port=metrics_port,
            )
        if report is not None:
            write(report, api.report(summary.output, prove=False).html)
        if as_json:
            say(json.dumps(summary_as_dict(summary), indent=1))
        elif not is_silent:
            say(format_summary(summary))
            say(format_preview(Path(summary.output)))


@click.command()
@click.option("--events", is_flag=True, help="Of a line of `run --json-lines` instead.")
def schema(events: bool) -> None:
    """Print the JSON Schema of job files, for editors.

    \b
    Examples:
      batchonnx schema > job.schema.json
      (then, as the first line of a job: # yaml-language-server: $schema=job.schema.json)
      batchonnx schema --events > event.schema.json
    """
    if events:
        from batchonnx.report.event_lines import events_schema

        say(json.dumps(events_schema(), indent=2))
        return
    from batchonnx.job.schema import job_schema

    say(json.dumps(job_schema(), indent=2))


@contextmanager
def open_lines(file: str | None) -> Iterator[Tell | None]:
    """What writes events to a file, anew; to standard output for "-". Raises StorageError."""
    if file is None:
        yield None
        return
    from batchonnx.report.event_lines import EventLines

    if file == "-":
        yield EventLines(sys.stdout)
        return
    try:
        opened = Path(file).open("w", encoding="utf-8")  # noqa: SIM115 closed below
    except OSError as error:
        facts = {"file": file, "found": error.strerror or str(error)}
        fix = "name a file that can be written, or - for standard output"
        raise StorageError(Problem("the file for events can't be opened", facts, fix)) from error
    with opened:
        yield EventLines(opened)


def _told(budget: float | None, prices: Path | None, engine: str | None) -> tuple[tuple[str, object], ...]:
    return ("budget", budget), ("prices", prices), ("engine", engine)
