"""Commands that show what was done: report, runs, diff."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import click

from batchonnx.cli.options import date_option, json_option, load_result, output_argument, set_option
from batchonnx.cli.screen import say
from batchonnx.errors import Problem, ProofError, StorageError


@click.command()
@output_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Left out: report-RUN.html, here.")
@click.option("--against", metavar="OTHER", help="Another result, whose predictions are shown beside.")
@click.option("--no-proof", is_flag=True, help="Don't read every file to prove the result first.")
@set_option
@date_option
@json_option
def report(
    output: str,
    settings: tuple[str, ...],
    date: str | None,
    out: Path | None,
    against: str | None,
    no_proof: bool,
    as_json: bool,
) -> None:
    """Write a page on the result at OUTPUT: one HTML file that needs no network and runs no script.

    Exit code 4 if the result doesn't prove to be whole; the page is written and says what is wrong.

    \b
    Examples:
      batchonnx report predictions/
      batchonnx report predictions/day=2026-11-22/ --against predictions/day=2026-11-21/ -o report.html
    """
    from batchonnx import api

    page = api.report(load_result(output, settings, date), against=against, prove=not no_proof)
    file = out or Path(f"report-{re.sub(r'[^0-9a-zA-Z]', '', page.run)}.html")
    write(file, page.html)
    say(json.dumps({"output": output, "run": page.run, "file": str(file)}) if as_json else f"wrote {file}")
    if page.broken:
        raise ProofError(*page.broken)


@click.command()
@click.argument("place")
@json_option
def runs(place: str, as_json: bool) -> None:
    """List the runs at PLACE, an output, or at all outputs below it.

    \b
    Examples:
      batchonnx runs predictions/
      batchonnx runs s3://scores/events/ --json
    """
    from batchonnx import api
    from batchonnx.report.history_view import format_runs

    found = api.runs(place)
    say(json.dumps([asdict(run) for run in found], indent=1) if as_json else format_runs(found))


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--key", metavar="COLUMN", help="A kept column that tells rows apart; left out: file and row.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    help="A relative difference of numbers that is no change.",
)
@json_option
def diff(a: str, b: str, key: str | None, tolerance: float, as_json: bool) -> None:
    """Say how the result at B differs from the one at A: settings, speed, and the predictions of each row.

    \b
    Examples:
      batchonnx diff predictions/ candidate/
      batchonnx diff predictions/day=2026-11-21/ predictions/day=2026-11-22/ --key user_id
    """
    from batchonnx import api
    from batchonnx.report.history_view import format_difference

    found = api.diff(a, b, key=key, tolerance=tolerance)
    say(json.dumps(asdict(found), indent=1) if as_json else format_difference(found))


def write(file: Path, data: bytes) -> None:
    """Raises StorageError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        facts = {"file": str(file), "found": error.strerror or str(error)}
        raise StorageError(
            Problem("the page can't be written", facts, "name another file: -o FILE")
        ) from error
