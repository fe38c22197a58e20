"""Commands that try a job on some of its rows: tune, chaos."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Literal

import click

from batchonnx.cli.options import date_option, job_argument, json_option, load_dated, set_option
from batchonnx.cli.screen import complain, say
from batchonnx.cli.seconds import SECONDS
from batchonnx.cli.stopping import cleaning_up


@click.command()
@job_argument
@set_option
@date_option
@click.option(
    "--budget", type=SECONDS, default="60s", show_default=True, metavar="TIME", help="About how long to try."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with a picture.")
@click.option("--write", is_flag=True, help="Put the best settings into JOB, and leave all else as it is.")
@json_option
def tune(
    job: Path,
    settings: tuple[str, ...],
    date: str | None,
    budget: float,
    html: Path | None,
    write: bool,
    as_json: bool,
) -> None:
    """Try settings of JOB's engine on its own rows, and say which score them fastest on this machine.

    Workers and the threads that they leave each other, rows in a batch, and processes for hooks if there are
    some. Nothing is published: rows go into a scratch folder beside the output, which is removed.

    \b
    Examples:
      batchonnx tune jobs/score.yaml
      batchonnx tune jobs/score.yaml --budget 20s --html tune.html
      batchonnx tune jobs/score.yaml --write
    """
    from batchonnx import api
    from batchonnx.cli.look import write as write_page
    from batchonnx.job.edit import set_in_file
    from batchonnx.rehearsal.tune.tuning_view import format_tuning, settings_of, tuning_as_dict, tuning_page

    with cleaning_up():
        found = api.tune(load_dated(job, settings, date), budget_s=budget)
    if html is not None:
        write_page(html, tuning_page(found))
    say(json.dumps(tuning_as_dict(found), indent=1) if as_json else format_tuning(found))
    best = settings_of(found)
    if write and best and found.best.setting != found.given:
        set_in_file(job, "engine", best)
        complain(f"wrote {', '.join(f'{key}: {value}' for key, value in best.items())} into {job}")


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

    with cleaning_up():
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
