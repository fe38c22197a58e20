"""Commands about jobs on a Ray cluster: submit, status, logs, stop, wait, list; and what runs there."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from batchonnx.cli.options import json_option, set_option
from batchonnx.cli.screen import complain, say
from batchonnx.cli.stopping import stopping
from batchonnx.errors import DriverError, Interrupted, Problem
from batchonnx.report.text import printable

if TYPE_CHECKING:
    from batchonnx.cluster.channel import Told
    from batchonnx.cluster.connect import Cluster
    from batchonnx.cluster.jobs import SubmittedJob
    from batchonnx.cluster.package import RunOptions

_address_option = click.option(
    "--address",
    help="The cluster's dashboard, http://HEAD:8265. Left out: as RAY_ADDRESS says.",
)
_job_argument = click.argument("job", metavar="ID|JOB")


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@_address_option
@set_option
@click.option("--follow", is_flag=True, help="Show its progress until it is done; Ctrl-C lets it go on.")
@click.option("--overwrite", is_flag=True, default=None, help="As with run.")
@click.option("--fresh", is_flag=True, help="As with run.")
@click.option("--incremental", is_flag=True, help="As with run.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="As with run.")
@click.option("--cpus", type=click.FloatRange(0), default=0, help="Reserve CPUs for the driver itself.")
@click.option("--gpus", type=click.FloatRange(0), default=0, help="Reserve GPUs for the driver itself.")
@click.option("--resource", multiple=True, metavar="NAME=AMOUNT", help="Reserve a custom resource.")
@click.option("--shared", multiple=True, metavar="FOLDER", help="A folder that every node has, too.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Files of the job's folder that stay here.")
@json_option
def submit(
    job: Path,
    address: str | None,
    settings: tuple[str, ...],
    follow: bool,
    overwrite: bool | None,
    fresh: bool,
    incremental: bool,
    engine: Literal["local", "ray"] | None,
    cpus: float,
    gpus: float,
    resource: tuple[str, ...],
    shared: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
) -> None:
    """Have a Ray cluster run JOB; this machine may be switched off meanwhile.

    The job's folder travels. Returns when the job runs, or with the reason why it doesn't. The same
    job submitted twice is one job; one that has ended goes on where it stopped.

    \b
    Examples:
      batchonnx submit jobs/score.yaml --address http://head:8265
      batchonnx submit jobs/score.yaml --set day=2026-11-22 --follow
      batchonnx submit jobs/score.yaml --shared /mnt/lake --exclude '*.parquet'
    """
    from batchonnx.cluster.connect import connect
    from batchonnx.cluster.submit import Wanted, submit_job, wait_for_start
    from batchonnx.job.load import load_job
    from batchonnx.job.variables import parse_settings

    given = parse_settings(settings)
    wanted = Wanted(cpus=cpus, gpus=gpus, resources=dict(map(_amount, resource)))
    loaded = load_job(job, given)
    cluster = connect(address)
    options: RunOptions = {
        "overwrite": overwrite,
        "fresh": fresh,
        "incremental": incremental,
        "engine": engine,
    }
    found, is_new = submit_job(cluster, loaded, given, options, wanted=wanted, shared=shared, exclude=exclude)
    if not as_json:
        told = "submitted" if is_new else "found, submitted before"
        say(f"{told}: {found.id}")
    with _detaching(found.id):
        if not found.is_over:
            found = wait_for_start(cluster, found, wanted, _say_waiting)
        if follow:
            _follow(cluster, found.id, as_json=as_json)
            return
    if as_json:
        say(json.dumps(asdict(found) | {"is_new": is_new}, indent=1))
    else:
        say(f"it runs; go on with\n  batchonnx logs {found.id} -f\n  batchonnx wait {found.id}")


@click.command()
@_job_argument
@_address_option
@set_option
@json_option
def status(job: str, address: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say how a submitted job is: by its id, or the newest one that writes where a job file says.

    \b
    Examples:
      batchonnx status score-flights-3fa2c81b9d10-1
      batchonnx status jobs/score.yaml --json | jq .status
    """
    from batchonnx.cluster.follow import lines_of
    from batchonnx.cluster.jobs import read_log

    cluster, found = _find(job, address, settings)
    lines = lines_of(read_log(cluster, found.id))
    if as_json:
        progress = [dict(one.fields) for one in lines if one.kind == "progress"]
        summary = [dict(one.fields) for one in lines if one.kind == "summary"]
        more = {"progress": progress[-1] if progress else None, "summary": summary[-1] if summary else None}
        say(json.dumps(asdict(found) | more, indent=1))
    else:
        say(_describe(found, lines))


@click.command()
@_job_argument
@_address_option
@set_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over; Ctrl-C lets it run.")
@json_option
def logs(job: str, address: str | None, settings: tuple[str, ...], follow: bool, as_json: bool) -> None:
    """Print what a submitted job has said. With --json each line is an object.

    \b
    Examples:
      batchonnx logs score-flights-3fa2c81b9d10-1
      batchonnx logs jobs/score.yaml -f
    """
    from batchonnx.cluster.follow import follow_log, lines_of
    from batchonnx.cluster.jobs import read_log

    cluster, found = _find(job, address, settings)
    show = _line_as_json if as_json else _line_as_text()
    if not follow:
        for one in lines_of(read_log(cluster, found.id)):
            show(one)
        return
    with _detaching(found.id):
        follow_log(cluster, found.id, show)


@click.command()
@_job_argument
@_address_option
@set_option
@click.option("--no-wait", is_flag=True, help="Don't wait until it has stopped.")
@json_option
def stop(job: str, address: str | None, settings: tuple[str, ...], no_wait: bool, as_json: bool) -> None:
    """Stop a submitted job: what it has scored is kept, nothing is published.

    The same job submitted again goes on where it stopped.

    \b
    Examples:
      batchonnx stop score-flights-3fa2c81b9d10-1
      batchonnx stop jobs/score.yaml
    """
    from batchonnx.cluster.jobs import PENDING_S, ask_to_stop, wait_until

    cluster, found = _find(job, address, settings)
    was_over, was_pending = found.is_over, found.status == "pending"
    if not was_over:
        ask_to_stop(cluster, found.id)
        if not no_wait and not was_pending:
            found = wait_until(cluster, found.id, lambda now: now.is_over)
    if as_json:
        say(json.dumps(asdict(found), indent=1))
    elif was_over:
        say(f"{found.id} was over already: {found.status}")
    elif was_pending:
        say(f"{found.id} is pending: it ends as soon as it begins, or after {PENDING_S} s of waiting")
    else:
        say(f"{found.id}: {found.status}" if found.is_over else f"{found.id} was asked to stop")


@click.command()
@_job_argument
@_address_option
@set_option
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up then, exit code 3.")
@json_option
def wait(
    job: str, address: str | None, settings: tuple[str, ...], timeout: float | None, as_json: bool
) -> None:
    """Wait until a submitted job is over, and exit with its driver's own exit code.

    \b
    Examples:
      batchonnx wait score-flights-3fa2c81b9d10-1 --timeout 3600
      batchonnx wait jobs/score.yaml --timeout 3600
    """
    from batchonnx.cluster.jobs import wait_until

    cluster, found = _find(job, address, settings)
    with _detaching(found.id):
        found = wait_until(cluster, found.id, lambda now: now.is_over, timeout)
    _finish(cluster, found, as_json=as_json)


@click.command("list")
@_address_option
@json_option
def list_(address: str | None, as_json: bool) -> None:
    """List the jobs that batchonnx has submitted to a cluster, the newest first.

    \b
    Examples:
      batchonnx list --address http://head:8265
      batchonnx list --json | jq '.[0].id'
    """
    from batchonnx.cluster.connect import connect
    from batchonnx.cluster.jobs import list_submitted

    found = list_submitted(connect(address))
    if as_json:
        say(json.dumps([asdict(job) for job in found], indent=1))
    elif not found:
        say("no jobs")
    else:
        width = max(len(job.id) for job in found)
        say("\n".join(f"{job.id:<{width}}  {job.status:<9}  {printable(job.output)}" for job in found))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def drive(folder: Path) -> None:
    """Run a submitted job: what the cluster calls, with the FOLDER that has travelled.

    \b
    Examples:
      batchonnx drive .
    """
    drain = threading.Event()
    with stopping(drain):
        from batchonnx.cluster.driver import drive as run_driver
        from batchonnx.report.summary import format_summary

        say(format_summary(run_driver(folder, drain, say)))


def _find(job: str, address: str | None, settings: tuple[str, ...]) -> tuple[Cluster, SubmittedJob]:
    from batchonnx.cluster.connect import connect
    from batchonnx.cluster.jobs import find_job
    from batchonnx.job.variables import parse_settings

    given = parse_settings(settings)
    cluster = connect(address)
    return cluster, find_job(cluster, job, given)


def _follow(cluster: Cluster, job_id: str, *, as_json: bool) -> None:
    """The same view as `run`, then the job's end as this command's own."""
    from batchonnx.cluster.channel import progress_of
    from batchonnx.cluster.follow import follow_log
    from batchonnx.report.live import live_view

    with live_view(quiet=as_json) as show:

        def tell(one: Told) -> None:
            if one.kind == "progress" and show is not None:
                show(progress_of(one))

        found = follow_log(cluster, job_id, tell)
    _finish(cluster, found, as_json=as_json)


def _finish(cluster: Cluster, job: SubmittedJob, *, as_json: bool) -> None:
    """Say how a job has ended, and exit as its driver did."""
    from batchonnx.cluster.channel import summary_of
    from batchonnx.cluster.follow import lines_of
    from batchonnx.cluster.jobs import LOST, read_log
    from batchonnx.cluster.submit import failure
    from batchonnx.report.summary import format_summary

    if not job.is_over:
        fix = f"batchonnx status {job.id}"
        raise DriverError(LOST, Problem("the job isn't over yet", {"job": job.id, "status": job.status}, fix))
    lines = lines_of(read_log(cluster, job.id))
    if job.code:
        raise failure(job, lines)
    summaries = [one for one in lines if one.kind == "summary"]
    if as_json:
        summary = dict(summaries[-1].fields) if summaries else None
        say(json.dumps(asdict(job) | {"summary": summary}, indent=1))
    else:
        say(format_summary(summary_of(summaries[-1])) if summaries else f"{job.id}: {job.status}")


def _describe(job: SubmittedJob, lines: Any) -> str:
    from batchonnx.cluster.channel import problems_of, progress_of, summary_of
    from batchonnx.report.live import progress_line
    from batchonnx.report.summary import format_summary
    from batchonnx.watch.pace import Pace

    head = f"{job.id}: {job.status}"
    if job.exit_code:
        head += f", exit code {job.exit_code}"
    last = {one.kind: one for one in lines if one.kind != "text"}
    if "summary" in last:
        return f"{head}\n{format_summary(summary_of(last['summary']))}"
    text = [head, f"  output   {printable(job.output)}"]
    if "error" in last:
        text += [f"  error    {printable(problem.title)}" for problem in problems_of(last["error"])]
    elif "progress" in last:
        progress, pace = progress_of(last["progress"]), Pace()
        pace.note(progress)
        text.append(f"  scored   {progress_line(progress, pace)}")
    elif job.status in ("pending", "failed") and job.message:
        text.append(f"  found    {printable(job.message.splitlines()[-1])}")
    return "\n".join(text)


def _line_as_json(one: Told) -> None:
    told = {"text": one.text} if one.kind == "text" else dict(one.fields)
    say(json.dumps({"kind": one.kind, **told}))


def _line_as_text() -> Callable[[Told], None]:
    """What people read: progress as a line, what is said twice (to programs, too) once."""
    from batchonnx.cluster.channel import progress_of
    from batchonnx.report.live import progress_line
    from batchonnx.watch.pace import Pace

    pace = Pace()

    def show(one: Told) -> None:
        if one.kind == "text":
            say(one.text)
        elif one.kind == "progress":
            progress = progress_of(one)
            pace.note(progress)
            say(progress_line(progress, pace))

    return show


def _say_waiting(job: SubmittedJob) -> None:
    complain(f"still pending: {printable(job.message)}")


@contextmanager
def _detaching(job_id: str) -> Iterator[None]:
    """Ctrl-C ends the command, and the job doesn't know of it."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"\ndetached: the job goes on; batchonnx logs {job_id} -f, or batchonnx stop {job_id}")
        sys.exit(Interrupted.exit_code)


def _amount(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        number = float(amount)
    except ValueError:
        number = 0.0
    if not name or number <= 0:
        raise click.UsageError(f"--resource is NAME=AMOUNT, found {text!r}.")
    return name, number
