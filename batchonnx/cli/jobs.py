"""Commands about jobs: init, plan, run, schema."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from batchonnx.cli.screen import complain, say
from batchonnx.errors import OutputExistsError, Problem

_set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Fill {{ KEY }} in the job file. May be repeated.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")
_job_argument = click.argument("job", type=click.Path(path_type=Path))


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the job here, not to the screen.")
@click.option("--output", help="Folder for the predictions, relative to the job file.")
@_json_option
def init(model: str, data: str, out: Path | None, output: str | None, as_json: bool) -> None:
    """Write a job file that runs, guessed from MODEL's signature and DATA's schema.

    \b
    Examples:
      batchonnx init model.onnx data/ -o job.yaml
      batchonnx init model.onnx 'data/*.parquet' > job.yaml
    """
    from batchonnx import api

    if out is not None and out.exists():
        facts = {"file": str(out)}
        raise OutputExistsError(Problem("the job file exists already", facts, "name another, or remove it"))
    text = api.init(model, data, output=output, folder=out.parent if out is not None else Path())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        complain(f"wrote {out}; next: batchonnx plan {out}")
    if as_json:
        say(json.dumps({"job": text, "file": str(out) if out is not None else None}))
    elif out is None:
        say(text, nl=False)


@click.command()
@_job_argument
@_set_option
@_json_option
def plan(job: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Say what a run of JOB will do; reads no row, runs no model.

    Checks model against data, and reports every mismatch at once.

    \b
    Examples:
      batchonnx plan jobs/score.yaml
      batchonnx plan jobs/score.yaml --set day=2026-11-22 --json
    """
    from batchonnx import api
    from batchonnx.job.variables import parse_settings
    from batchonnx.report.plan_view import format_plan, plan_as_dict

    made = api.plan(job, parse_settings(settings))
    say(json.dumps(plan_as_dict(made), indent=1) if as_json else format_plan(made))


@click.command()
@_job_argument
@_set_option
@click.option(
    "--overwrite", is_flag=True, default=None, help="Replace a former result when this one is complete."
)
@click.option("--fresh", is_flag=True, help="Start over: leave an unfinished run, replace a former result.")
@click.option(
    "--incremental", is_flag=True, help="Score only files that are new or changed since the published result."
)
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@_json_option
def run(
    job: Path,
    settings: tuple[str, ...],
    overwrite: bool | None,
    fresh: bool,
    incremental: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score every row of JOB in this process and publish the result, all or nothing.

    The same command again goes on where a run was stopped, by whatever. Ctrl-C stops cleanly:
    nothing is published, what was scored is kept. A second Ctrl-C ends at once.

    \b
    Examples:
      batchonnx run jobs/score.yaml
      batchonnx run jobs/filetypes.yaml --set dir=/usr/share
      batchonnx run jobs/score.yaml --json | jq .predicted
      batchonnx run jobs/score.yaml --incremental
    """
    stop = threading.Event()
    with stopping(stop):
        from batchonnx import api
        from batchonnx.job.variables import parse_settings
        from batchonnx.report.live import live_view
        from batchonnx.report.preview import format_preview
        from batchonnx.report.summary import format_summary, summary_as_dict

        with live_view(quiet=quiet or as_json) as show:
            summary = api.run(
                job,
                parse_settings(settings),
                on_progress=show,
                stop=stop,
                overwrite=overwrite,
                fresh=fresh,
                incremental=incremental,
            )
        if as_json:
            say(json.dumps(summary_as_dict(summary), indent=1))
        elif not quiet:
            say(format_summary(summary))
            say(format_preview(Path(summary.output)))


@click.command()
def schema() -> None:
    """Print the JSON Schema of job files, for editors.

    \b
    Examples:
      batchonnx schema > job.schema.json
      (then, as the first line of a job: # yaml-language-server: $schema=job.schema.json)
    """
    from batchonnx.job.schema import job_schema

    say(json.dumps(job_schema(), indent=2))


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; the second one ends the process at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()
        # Not by print: the signal may have come in the middle of one.
        with suppress(OSError):
            os.write(2, b"\nstopping: what is scored is kept, nothing is published; again to end at once\n")

    former: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {
        number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
