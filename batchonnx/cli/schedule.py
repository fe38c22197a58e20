"""Commands about schedules: backfill, and the group schedule."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from batchonnx.cli.errors import ErrorBoundary, render
from batchonnx.cli.options import job_argument, json_option
from batchonnx.cli.screen import complain, say
from batchonnx.cli.stopping import stopping
from batchonnx.schedule.render.target import Target

if TYPE_CHECKING:
    from batchonnx.errors import BatchonnxError
    from batchonnx.schedule.run_tick import TickResult

_set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Fill {{ KEY }} in the job file, but the date.",
)
_quiet_option = click.option("--quiet", is_flag=True, help="No progress.")


@click.command()
@job_argument
@click.option("--from", "first", required=True, metavar="DATE", help="The first logical date (or time).")
@click.option("--to", "last", metavar="DATE", help="The last one; left out: up to now.")
@click.option(
    "--parallel", type=click.IntRange(1), default=1, show_default=True, help="How many dates at a time."
)
@_set_option
@_quiet_option
@json_option
def backfill(
    job: Path,
    first: str,
    last: str | None,
    parallel: int,
    settings: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Score the logical dates of scheduled JOB that aren't published, in order.

    What is published is left alone. A date that fails keeps no other from being scored; the exit
    code is the first failure's. After Ctrl-C the same command goes on.

    \b
    Examples:
      batchonnx backfill jobs/daily.yaml --from 2026-11-01 --to 2026-11-22
      batchonnx backfill jobs/daily.yaml --from 2026-11-01 --parallel 2 --json
    """
    stop = threading.Event()
    with stopping(stop):
        from batchonnx import api
        from batchonnx.job.variables import parse_settings
        from batchonnx.report.live import live_view
        from batchonnx.schedule.tell import exit_code_of, format_result

        with live_view(quiet=quiet or as_json or parallel > 1) as show:
            results = api.backfill(
                job,
                first,
                last,
                parse_settings(settings),
                parallel=parallel,
                stop=stop,
                on_tick=None if as_json else lambda result: say(format_result(result)),
                on_progress=show,
            )
        if as_json:
            say(json.dumps([asdict(result) for result in results], indent=1))
    click.get_current_context().exit(exit_code_of(results))


@click.group(cls=ErrorBoundary)
def schedule() -> None:
    """Run a job at its times, or write what another scheduler runs.

    \b
    Examples:
      batchonnx schedule next jobs/daily.yaml
      batchonnx schedule run jobs/daily.yaml
    """


@schedule.command("next")
@job_argument
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@_set_option
@json_option
def next_(job: Path, count: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Show when JOB is due next, and for which logical dates.

    \b
    Examples:
      batchonnx schedule next jobs/daily.yaml
      batchonnx schedule next jobs/daily.yaml -n 30 --json
    """
    from batchonnx import api
    from batchonnx.job.variables import parse_settings
    from batchonnx.schedule.scheduled import open_scheduled
    from batchonnx.schedule.tell import format_ticks

    variables = parse_settings(settings)
    ticks = api.next_ticks(job, variables, count=count)
    if as_json:
        say(json.dumps([{"at": tick.at.isoformat(), "date": tick.date} for tick in ticks], indent=1))
    else:
        say(format_ticks(ticks, open_scheduled(job, variables).calendar))


@schedule.command()
@job_argument
@_set_option
@_quiet_option
@json_option
def run(job: Path, settings: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Run JOB at its times, in the foreground, until Ctrl-C.

    First what is due already: the newest tick, and as many before it as schedule.catch_up covers, if
    their outputs aren't published. May be killed and started again at any moment: no tick is published
    twice. A second scheduler of the same job is refused. With --json: a line for each tick.

    \b
    Examples:
      batchonnx schedule run jobs/daily.yaml
    """
    stop = threading.Event()
    with stopping(stop):
        from batchonnx.errors import Interrupted, Problem
        from batchonnx.job.variables import parse_settings
        from batchonnx.report.live import live_view
        from batchonnx.schedule.clock import WallClock
        from batchonnx.schedule.foreground import run_schedule
        from batchonnx.schedule.scheduled import open_scheduled

        scheduled = open_scheduled(job, parse_settings(settings))
        with live_view(quiet=quiet or as_json) as show:
            run_schedule(
                scheduled,
                clock=WallClock(),
                stop=stop,
                on_tick=lambda result: _say_result(result, as_json=as_json),
                on_trouble=_complain_of,
                on_progress=show,
            )
        if stop.is_set():
            fix = "start it again: it goes on where it stopped"
            raise Interrupted(Problem("interrupted: what was scored is kept", {}, fix))


@schedule.command()
@job_argument
@click.option(
    "--at",
    metavar="TIME",
    help="The tick's time, 2026-11-23T02:15Z or @ and seconds since 1970; left out: now.",
)
@_set_option
@_quiet_option
@json_option
def tick(job: Path, at: str | None, settings: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Run what is due of JOB at one moment: what other schedulers call at each tick.

    The newest tick at that time, and as many before it as schedule.catch_up covers, in order, if their
    outputs aren't published. Where another tick's run goes on, it waits, is skipped or takes its place,
    as schedule.overlap says. With --json: a line for each tick.

    \b
    Examples:
      batchonnx schedule tick jobs/daily.yaml
      batchonnx schedule tick jobs/daily.yaml --at 2026-11-23T02:15+01:00
      batchonnx schedule tick jobs/daily.yaml --at @1795400100
    """
    stop = threading.Event()
    results: list[TickResult] = []
    with stopping(stop):
        from batchonnx.job.variables import parse_settings
        from batchonnx.report.live import live_view
        from batchonnx.schedule.backfill import interrupted
        from batchonnx.schedule.clock import WallClock
        from batchonnx.schedule.due import run_one_tick
        from batchonnx.schedule.scheduled import open_scheduled
        from batchonnx.schedule.tell import exit_code_of

        def tell(result: TickResult) -> None:
            results.append(result)
            _say_result(result, as_json=as_json)

        scheduled, clock = open_scheduled(job, parse_settings(settings)), WallClock()
        moment = _moment(at) if at is not None else clock.now()
        with live_view(quiet=quiet or as_json) as show:
            run_one_tick(scheduled, moment, clock=clock, stop=stop, on_tick=tell, on_progress=show)
        if stop.is_set():
            raise interrupted(sum(result.outcome == "published" for result in results))
        if not results and not as_json:
            complain("nothing is due: all is published")
    click.get_current_context().exit(exit_code_of(results))


@schedule.command("render")
@job_argument
@click.option("--target", type=click.Choice(get_args(Target)), required=True, help="Who runs the ticks.")
@click.option(
    "--image", default="batchonnx:cpu", show_default=True, help="Container image; see deploy/docker."
)
@click.option("--namespace", default="default", show_default=True, help="Of Kubernetes.")
@click.option(
    "--job-path",
    help="Where the job file lies for whoever runs the ticks (airflow, cron, ray). Left out: JOB.",
)
@click.option(
    "--cluster", is_flag=True, help="With kubernetes: a Ray cluster for each tick, by KubeRay's RayJob."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write it here, not to the screen.")
@_set_option
@json_option
def render_(
    job: Path,
    target: Target,
    image: str,
    namespace: str,
    job_path: str | None,
    cluster: bool,
    out: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write what another system needs to run JOB at its times.

    What is written names the time of each tick to `schedule tick`, which does the rest: the logical
    date, what was missed, the overlap policy.

    \b
    Examples:
      batchonnx schedule render jobs/daily-ray.yaml --target kuberay -o daily.yaml
      batchonnx schedule render jobs/daily-ray.yaml --target kubernetes --cluster --namespace scoring
      batchonnx schedule render jobs/daily.yaml --target airflow > dags/daily.py
      batchonnx schedule render jobs/daily.yaml --target cron --job-path /srv/jobs/daily.yaml
      batchonnx schedule render jobs/daily-ray.yaml --target ray > start.sh
    """
    from batchonnx.job.variables import parse_settings
    from batchonnx.schedule.render.target import RenderOptions, render_schedule
    from batchonnx.schedule.scheduled import open_scheduled

    scheduled = open_scheduled(job, parse_settings(settings))
    options = RenderOptions(image, namespace, job_path, is_cluster=cluster)
    text = render_schedule(scheduled, target, options)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        complain(f"wrote {out}")
    if as_json:
        told = {"target": target, "text": text, "file": str(out) if out is not None else None}
        say(json.dumps(told, indent=1))
    elif out is None:
        say(text, nl=False)


def _say_result(result: TickResult, *, as_json: bool) -> None:
    from batchonnx.schedule.tell import format_result

    say(json.dumps(asdict(result)) if as_json else format_result(result))


def _complain_of(error: BatchonnxError) -> None:
    complain("\n".join(render(problem) for problem in error.problems))


def _moment(text: str) -> datetime:
    try:
        if text.startswith("@"):
            return datetime.fromtimestamp(int(text[1:]), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no time", param_hint="--at") from error
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no zone: add Z or an offset like +01:00", param_hint="--at")
    return moment
