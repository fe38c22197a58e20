"""Commands that say what a model is and what it is worth: inspect, validate, compare, profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchonnx.cli.model_options import (
    chosen_sizes,
    gate_options,
    html_option,
    output_option,
    rows_options,
    size_option,
    write_page,
)
from batchonnx.cli.options import json_option
from batchonnx.cli.screen import complain, say
from batchonnx.errors import GateError

if TYPE_CHECKING:
    from batchonnx.lifecycle.feed import Rows
    from batchonnx.lifecycle.gates import Gates


@click.command()
@click.argument("path")
@size_option
@html_option
@json_option
def inspect(path: str, sizes: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """Show what the model at PATH takes and gives, what it holds and costs, and how it was made.

    \b
    Examples:
      batchonnx model inspect model.onnx
      batchonnx model inspect model.onnx --html model.html    with the graph drawn
      batchonnx model inspect model.onnx --json | jq .inputs
    """
    from batchonnx.lifecycle.inspection import look_into
    from batchonnx.report.model_page import model_page
    from batchonnx.report.model_view import format_inspection

    found = look_into(path, chosen_sizes(sizes))
    if html is not None:
        write_page(html, model_page(found))
    say(json.dumps(found.as_dict(), indent=1) if as_json else format_inspection(found))


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="MODEL...")
@rows_options
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), help="Seconds for each question; 120 if left out."
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="GB that a model may take; four times its size and 4 GB if left out.",
)
@click.option("--strict", is_flag=True, help="Warnings end with exit code 4, too.")
@json_option
def validate(
    paths: tuple[str, ...],
    rows: Rows,
    timeout: float | None,
    memory: float | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Say whether each MODEL can be trusted with a job; one that can't ends with exit code 4.

    Checks the file, loads it, and runs it on 1, 2 and 7 rows in a process that may die of it: is the batch
    dynamic, do rows depend on their neighbours, does padding leak, is there NaN, is it the same each time.

    \b
    Examples:
      batchonnx model validate model.onnx
      batchonnx model validate model.onnx --job job.yaml --strict
      batchonnx model validate models/*.onnx --timeout 20 --memory 2
    """
    from batchonnx.lifecycle.validate import Limits
    from batchonnx.lifecycle.validate import validate as validate_models
    from batchonnx.report.validation_view import format_validation

    limits = Limits(timeout or Limits.timeout_s, round(memory * 1e9) if memory is not None else None)
    found = []
    for one in validate_models(paths, rows, limits):
        found.append(one)
        if not as_json:
            say(format_validation(one))
    if as_json:
        say(json.dumps([one.as_dict() for one in found], indent=1))
    if any(not one.is_valid or (strict and one.has_warnings) for one in found):
        click.get_current_context().exit(GateError.exit_code)


@click.command()
@click.argument("a")
@click.argument("b")
@rows_options
@gate_options
@output_option
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    help="Take speed at this size. May be repeated.",
)
@click.option("--no-speed", is_flag=True, help="Compare answers only.")
@click.option("--no-report", is_flag=True, help="Write nothing beside B.")
@json_option
def compare(
    a: str,
    b: str,
    rows: Rows,
    gates: Gates,
    outputs: tuple[str, ...],
    batches: tuple[int, ...],
    no_speed: bool,
    no_report: bool,
    as_json: bool,
) -> None:
    """Say whether the model B may stand for the model A: answers and speed on the same rows, here.

    A gate that is missed ends with exit code 4. The report is kept beside B.

    \b
    Examples:
      batchonnx model compare model.onnx model.int8.onnx --job job.yaml --min-agreement 0.99 --min-speedup 1
      batchonnx model compare a.onnx b.onnx --max-diff 1e-5 --no-speed
    """
    from batchonnx.lifecycle.compare import SIZES, require_good
    from batchonnx.lifecycle.compare import compare as compare_models
    from batchonnx.lifecycle.comparison_report import as_markdown, keep_report

    found = compare_models(
        a,
        b,
        rows,
        gates=gates,
        outputs=outputs or None,
        sizes=() if no_speed else batches or SIZES,
    )
    if "://" not in b and not no_report:
        _, page = keep_report(found, Path(b))
        complain(f"wrote {page}")
    if as_json:
        say(json.dumps(found.as_dict(), indent=1))
        if not found.passed:
            click.get_current_context().exit(GateError.exit_code)
        return
    say(as_markdown(found), nl=False)
    require_good(found)


@click.command()
@click.argument("path")
@rows_options
@click.option("--batch", type=click.IntRange(1), help="Rows in each call; 32 if left out.")
@click.option("--calls", type=click.IntRange(1), help="How many calls; 20 if left out.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Of one call.")
@html_option
@json_option
def profile(
    path: str,
    rows: Rows,
    batch: int | None,
    calls: int | None,
    threads: int,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show where the time of the model at PATH goes, operator by operator, and which provider runs it.

    \b
    Examples:
      batchonnx model profile model.onnx --batch 64
      batchonnx model profile model.onnx --job job.yaml --html profile.html
    """
    from batchonnx.lifecycle.profile import BATCH_ROWS, CALLS, profile_model
    from batchonnx.report.profile_view import format_profile, profile_page

    found = profile_model(
        path,
        rows,
        batch_rows=batch or BATCH_ROWS,
        calls=calls or CALLS,
        threads=threads,
    )
    if html is not None:
        write_page(html, profile_page(found))
    say(json.dumps(found.as_dict(), indent=1) if as_json else format_profile(found))
