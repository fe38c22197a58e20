"""Commands that try a job on some of its rows: tune, chaos."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Literal

import click

from batchonnx.cli.jobs import date_option, job_argument, json_option, load_dated, set_option
from batchonnx.cli.screen import complain, say


@click.command()
@job_argument
@set_option
@date_option
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), help="In place of the job's own: where workers live."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often the driver is killed."
)
@click.option("--seed", type=click.IntRange(0), help="Do the same at the same moments again.")
@json_option
def chaos(
    job: Path,
    settings: tuple[str, ...],
    date: str | None,
    engine: Literal["local", "ray"] | None,
    rounds: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Kill, stop and hinder runs of a sample of JOB, and say which promises held.

    The job's own output is never touched: all is written into a scratch folder beside it, and removed.
    Exit code 4 if a promise was broken.

    \b
    Examples:
      batchonnx chaos jobs/score.yaml
      batchonnx chaos jobs/score.yaml --engine ray --rounds 2
      batchonnx chaos jobs/score.yaml --seed 7 --json
    """
    from batchonnx import api
    from batchonnx.errors import ProofError
    from batchonnx.rehearsal.chaos.drill_view import broken, drill_as_dict, format_drill

    drill = api.chaos(
        load_dated(job, settings, date),
        engine=engine,
        rounds=rounds,
        seed=secrets.randbelow(1 << 16) if seed is None else seed,
        on_act=(lambda act: None) if as_json else (lambda act: complain(f"  {act} …")),
    )
    say(json.dumps(drill_as_dict(drill), indent=1) if as_json else format_drill(drill))
    if not drill.is_green:
        raise ProofError(*broken(drill))
