"""Submitted jobs as the cluster knows them: looked up, listed, stopped, waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchonnx.cluster.connect import Cluster, asking
from batchonnx.errors import ClusterError, Interrupted, Problem
from batchonnx.job.load import load_job

PENDING_S = 900
"""After so long Ray itself gives up a job that it couldn't begin; until then it heeds no stop."""
STOP_WAIT_S = 300
"""What a driver that is to stop has for the shards in its hands, before it is killed."""
POLL_S = 0.5
OUTPUT, NAME, VERSION = "batchonnx_output", "batchonnx_job", "batchonnx_version"
"""Keys of a submission's metadata; whoever has the dashboard sees it."""
LOST = 3
"""The exit code of a job whose driver never began, or whose end nobody has seen."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job that was handed to a cluster.

    status: pending, running, stopped, succeeded or failed. exit_code: the driver's; None while it runs, and
    where it was stopped or never began. started, ended: Unix seconds. message: Ray's, on failure.
    """

    id: str
    status: str
    job: str
    output: str
    exit_code: int | None
    started: float | None
    ended: float | None
    message: str

    @property
    def is_over(self) -> bool:
        """Nothing will change any more."""
        return self.status not in ("pending", "running")

    @property
    def code(self) -> int:
        """What a command that waited for the job exits with."""
        if self.status == "succeeded":
            return 0
        if self.status == "stopped":
            return Interrupted.exit_code
        if self.exit_code is None:
            return LOST
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code


def find_job(cluster: Cluster, named: str, settings: dict[str, str] | None = None) -> SubmittedJob:
    """A job by its id, or the newest submission that writes where a job file says.

    settings: of that job file. Raises ClusterError if there is none, JobFileError.
    """
    if _is_file(named):
        job = load_job(named, settings or {})
        output = job.resolve(job.job.output.path)
        found = [one for one in list_submitted(cluster) if one.output == output]
        if not found:
            facts = {"cluster": cluster.name, "job": named, "output": output}
            fix = f"batchonnx submit {named}"
            raise ClusterError(Problem("no job that writes there was submitted to this cluster", facts, fix))
        return found[0]
    found_one = look_up(cluster, named)
    if found_one is None:
        raise _unknown(cluster, named)
    return found_one


def look_up(cluster: Cluster, job_id: str) -> SubmittedJob | None:
    """A job by its id; None if the cluster doesn't know it. Raises ClusterError."""
    try:
        with asking(cluster.url):
            return _from_details(cluster.client.get_job_info(job_id))
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise _refusal(cluster, error) from error


def list_submitted(cluster: Cluster) -> list[SubmittedJob]:
    """All jobs that batchonnx has submitted to a cluster that it still knows, the newest first."""
    with _answering(cluster):
        details = cluster.client.list_jobs()
    ours = [one for one in details if one.submission_id and OUTPUT in (one.metadata or {})]
    return sorted(map(_from_details, ours), key=lambda job: (-(job.started or 0), job.id))


def ask_to_stop(cluster: Cluster, job_id: str) -> None:
    """Have a job end as after Ctrl-C: its driver keeps what is scored and publishes nothing.

    Returns at once. Raises ClusterError.
    """
    with _answering(cluster):
        cluster.client.stop_job(job_id)


def wait_until(
    cluster: Cluster,
    job_id: str,
    is_enough: Callable[[SubmittedJob], bool],
    timeout_s: float | None = None,
) -> SubmittedJob:
    """Look at a job until it is as wanted, or the time is up. Raises ClusterError if it is gone."""
    begin = time.monotonic()
    while True:
        job = look_up(cluster, job_id)
        if job is None:
            raise _unknown(cluster, job_id)
        if is_enough(job) or (timeout_s is not None and time.monotonic() - begin >= timeout_s):
            return job
        time.sleep(POLL_S)


def read_log(cluster: Cluster, job_id: str) -> str:
    """All that a job has said so far; empty before it has begun. Raises ClusterError."""
    with _answering(cluster):
        return str(cluster.client.get_job_logs(job_id) or "")


@contextmanager
def _answering(cluster: Cluster) -> Iterator[None]:
    try:
        with asking(cluster.url):
            yield
    except RuntimeError as error:
        raise _refusal(cluster, error) from error


def _refusal(cluster: Cluster, error: RuntimeError) -> ClusterError:
    lines = [line for line in str(error).strip().splitlines() if line.strip(" .")]
    facts = {"cluster": cluster.name, "found": lines[-1][:500] if lines else type(error).__name__}
    fix = "see the head's logs (dashboard.log), then run the same command again"
    return ClusterError(Problem("the cluster couldn't do it", facts, fix))


def _unknown(cluster: Cluster, job_id: str) -> ClusterError:
    facts = {"cluster": cluster.name, "found": job_id}
    fix = "batchonnx list names those it knows; a head that was started anew has forgotten all of before"
    return ClusterError(Problem("the cluster knows no such job", facts, fix))


def _from_details(details: Any) -> SubmittedJob:
    told = details.metadata or {}
    return SubmittedJob(
        id=details.submission_id or details.job_id,
        status=str(details.status).lower(),
        job=told.get(NAME, ""),
        output=told.get(OUTPUT, ""),
        exit_code=details.driver_exit_code,
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        message=(details.message or "").strip(),
    )


def _is_file(named: str) -> bool:
    return named.endswith((".yaml", ".yml")) or "/" in named or Path(named).is_file()
