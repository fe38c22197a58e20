"""Commands about results: verify, explain, publish, clean."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from batchonnx.cli.options import date_option, json_option, load_result, output_argument, set_option
from batchonnx.cli.screen import say


@click.command()
@output_argument
@click.option("--deep", is_flag=True, help="Score a random sample of rows again and compare.")
@click.option(
    "--rows", type=click.IntRange(1), default=10_000, show_default=True, help="With --deep: how many."
)
@click.option("--seed", type=int, help="With --deep: draw the same sample again.")
@set_option
@date_option
@json_option
def verify(
    output: str,
    settings: tuple[str, ...],
    date: str | None,
    deep: bool,
    rows: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Prove that the result at OUTPUT has every row once, from its records and files alone.

    Exit code 4, and all that is wrong, if it doesn't. A job file stands for its output, which is then
    reached as the job's `storage:` says.

    \b
    Examples:
      batchonnx verify predictions/
      batchonnx verify predictions/ --deep --json
      batchonnx verify jobs/score.yaml --set day=2026-11-22
    """
    from batchonnx import api
    from batchonnx.report.proof_view import format_proof

    proof = api.verify(load_result(output, settings, date), deep=deep, rows=rows, seed=seed)
    say(json.dumps(asdict(proof), indent=1) if as_json else format_proof(proof))


@click.command()
@output_argument
@click.option("--row", type=click.IntRange(0), help="The row's place in the result, from 0, parts by name.")
@click.option("--key", metavar="COLUMN=VALUE", help="The row that holds a value in a kept column.")
@set_option
@date_option
@json_option
def explain(
    output: str,
    settings: tuple[str, ...],
    date: str | None,
    row: int | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Say where a prediction at OUTPUT comes from: file and row, shard, model and settings.

    \b
    Examples:
      batchonnx explain predictions/ --row 1000000
      batchonnx explain predictions/ --key event_id=8f3a
    """
    from batchonnx import api
    from batchonnx.report.proof_view import format_origin

    if (row is None) == (key is None):
        raise click.UsageError("Give either --row or --key.")
    column, sign, value = (key or "").partition("=")
    if key is not None and not sign:
        raise click.UsageError(f"--key is COLUMN=VALUE, found {key!r}.")
    result = load_result(output, settings, date)
    origins = api.explain(result, row=row, key=(column, value) if key is not None else None)
    if as_json:
        say(json.dumps([asdict(origin) for origin in origins], indent=1, default=str))
    else:
        say("\n\n".join(map(format_origin, origins)))


@click.command()
@output_argument
@click.option("--force", is_flag=True, help="Whatever the gate has found.")
@set_option
@date_option
@json_option
def publish(output: str, settings: tuple[str, ...], date: str | None, force: bool, as_json: bool) -> None:
    """Publish the complete run that the gate holds back from OUTPUT.

    \b
    Examples:
      batchonnx publish predictions/ --force
    """
    from batchonnx import api

    manifest = api.publish(load_result(output, settings, date), force=force)
    if as_json:
        say(json.dumps({"output": output, "run": manifest.run, "predicted": manifest.predicted}))
    else:
        say(f"published {manifest.predicted:,} predictions at {output}")


@click.command()
@output_argument
@set_option
@date_option
@json_option
def clean(output: str, settings: tuple[str, ...], date: str | None, as_json: bool) -> None:
    """Remove what crashes have left at OUTPUT and no run needs.

    A run that can go on is kept, and so is the published result.

    \b
    Examples:
      batchonnx clean s3://scores/events/
    """
    from batchonnx import api
    from batchonnx.report.text import of_bytes, plural

    cleared = api.clean(load_result(output, settings, date))
    if as_json:
        say(json.dumps([asdict(one) for one in cleared], indent=1))
        return
    for one in cleared:
        size = f"  ({of_bytes(one.bytes)})" if one.bytes is not None else ""
        say(f"removed {one.what}: {one.path}{size}")
    say(f"{plural(len(cleared), 'leftover')} removed at {output}")
