"""A job handed to a cluster: once, whoever submits it how often."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchonnx.cluster import jobs
from batchonnx.cluster.bootstrap import environment
from batchonnx.cluster.channel import Told, problems_of
from batchonnx.cluster.connect import Cluster, asking
from batchonnx.cluster.follow import lines_of
from batchonnx.cluster.jobs import SubmittedJob, look_up, read_log, wait_until
from batchonnx.cluster.nodes import Node, is_here, live_nodes, missing
from batchonnx.cluster.package import (
    RunOptions,
    Submission,
    content_digest,
    describe,
    travelling_files,
    write_package,
)
from batchonnx.cluster.places import stays_here
from batchonnx.errors import ClusterError, DriverError, Problem
from batchonnx.job.spec import JobFile

ENTRYPOINT = "exec python bootstrap.py"
"""`exec`: a signal of Ray's reaches the driver alone, without a shell that would end first."""
PATIENCE_S = 15.0
"""How long a job may wait for what no node has: a cluster that grows may be about to have it."""
NAME_LENGTH, DIGEST_LENGTH = 40, 12


@dataclass(frozen=True)
class Wanted:
    """What the driver itself reserves on the cluster, as Ray counts. memory: bytes.

    Nothing by default: the actors of the job's engine reserve for themselves.
    """

    cpus: float = 0
    gpus: float = 0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Resource as Ray names it -> amount, without those of which nothing is wanted."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory), **self.resources}
        return {name: amount for name, amount in named.items() if amount}


def base_id(job: JobFile, options: RunOptions, content: str, *, stays: bool) -> str:
    """The id of a job on its output, but for the attempt's number.

    Of what the job says and what travels with it: the same from everywhere, unless it `stays` where its
    folder is. content: digest of what travels.
    """
    told = {
        "job": job.job.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "output": job.resolve(job.job.output.path),
        "folder": str(job.folder) if stays else None,
        "options": {name: value for name, value in options.items() if value},
        "content": content,
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", job.job.name.lower()).strip("-")[:NAME_LENGTH].strip("-")
    return f"{name or 'job'}-{digest[:DIGEST_LENGTH]}"


def submit_job(
    cluster: Cluster,
    job: JobFile,
    settings: Mapping[str, str],
    options: RunOptions,
    *,
    wanted: Wanted,
    shared: Sequence[str],
    exclude: Sequence[str],
) -> tuple[SubmittedJob, bool]:
    """Hand a job over, unless it is there already: then the running attempt is the answer.

    options: of the run. shared: folders that every node has. exclude: patterns of
    what is not to travel. Returns the job and whether it is new. Raises JobFileError for paths that the
    cluster can't reach, ClusterError.
    """
    nodes = live_nodes(cluster)
    stays = stays_here(job, shared, is_here=is_here(nodes))
    files = {} if stays else travelling_files(job, exclude)
    submission = describe(job, settings, options, environment(), stays=stays)
    base = base_id(job, options, content_digest(job, files), stays=stays)
    number = 1
    while True:
        name = f"{base}-{number}"
        found = look_up(cluster, name)
        if found is None:
            is_new = _hand_over(cluster, name, job, submission, files, wanted)
            found = look_up(cluster, name)
            if found is None:
                facts = {"cluster": cluster.name, "job": name}
                fix = "run the same command again"
                raise ClusterError(Problem("the cluster has lost the job that it was given", facts, fix))
            # Whoever was first has submitted it while we tried: it is this one, even if it is over already.
            return found, is_new
        if not found.is_over:
            return found, False
        number += 1


def wait_for_start(
    cluster: Cluster, job: SubmittedJob, wanted: Wanted, on_wait: Callable[[SubmittedJob], None]
) -> SubmittedJob:
    """Wait until a job's driver has found its environment as it should be, or is over.

    on_wait: called with the job as it is while it waits. Raises ClusterError if it can't be placed,
    DriverError with the driver's own exit code if it failed before its work.
    """
    waited = 0.0
    while True:
        job = wait_until(cluster, job.id, lambda now: now.status != "pending", PATIENCE_S)
        if job.status != "pending":
            break
        waited += PATIENCE_S
        if lacking := missing(nodes := live_nodes(cluster), wanted.by_name()):
            raise _unplaced(cluster, job, wanted, nodes, lacking)
        on_wait(job)
    while True:
        told = lines_of(read_log(cluster, job.id))
        if any(one.kind == "ready" for one in told):
            return job
        if job.is_over:
            raise failure(job, told)
        job = wait_until(cluster, job.id, lambda now: now.is_over, jobs.POLL_S)


def failure(job: SubmittedJob, told: Sequence[Told]) -> DriverError:
    """The error of a job that didn't succeed: its driver's own problems where it could tell them."""
    errors = [one for one in told if one.kind == "error"]
    if errors:
        return DriverError(job.code, *problems_of(errors[-1]))
    facts = {"job": job.id, "status": job.status, "found": _last_line(job, told)}
    if job.status == "stopped":
        fix = "submit the same job again: it goes on where it stopped"
        return DriverError(job.code, Problem("the job was stopped: nothing was published", facts, fix))
    fix = f"batchonnx logs {job.id}; the same job submitted again goes on where this one ended"
    return DriverError(job.code, Problem("the job's driver ended without a word", facts, fix))


def _hand_over(
    cluster: Cluster,
    name: str,
    job: JobFile,
    submission: Submission,
    files: Mapping[str, Path],
    wanted: Wanted,
) -> bool:
    """Submit under an id; False if another was first."""
    with tempfile.TemporaryDirectory(prefix="batchonnx-") as folder:
        write_package(Path(folder), submission, files)
        try:
            with asking(cluster.url):
                cluster.client.submit_job(
                    entrypoint=ENTRYPOINT,
                    submission_id=name,
                    runtime_env=runtime_env(job, folder),
                    metadata=_metadata(job),
                    entrypoint_num_cpus=wanted.cpus or None,
                    entrypoint_num_gpus=wanted.gpus or None,
                    entrypoint_memory=wanted.memory or None,
                    entrypoint_resources=dict(wanted.resources) or None,
                )
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            facts = {"cluster": cluster.name, "found": _sentence(str(error))}
            fix = "mend what it says, then submit again"
            raise ClusterError(Problem("the cluster refuses the job", facts, fix)) from error
    return True


def runtime_env(job: JobFile, folder: str) -> dict[str, Any]:
    """What Ray prepares for the job, from its `dependencies`. folder: what travels.

    Nothing of this machine's environment goes along: whoever has the dashboard sees it.
    """
    prepared: dict[str, Any] = {
        "working_dir": folder,
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(jobs.STOP_WAIT_S)},
    }
    if job.job.dependencies.pip:
        prepared["pip"] = list(job.job.dependencies.pip)
    return prepared


def _metadata(job: JobFile) -> dict[str, str]:
    return {
        jobs.NAME: job.job.name,
        jobs.OUTPUT: job.resolve(job.job.output.path),
        jobs.VERSION: version("batchonnx"),
    }


def _unplaced(
    cluster: Cluster, job: SubmittedJob, wanted: Wanted, nodes: Sequence[Node], lacking: Mapping[str, float]
) -> ClusterError:
    asked = wanted.by_name()
    facts = {
        "cluster": f"{cluster.name}, {len(nodes)} nodes" if len(nodes) != 1 else f"{cluster.name}, 1 node",
        "job": job.id,
        "expected": ", ".join(f"{name} {asked[name]:g}" for name in lacking),
        "found": ", ".join(f"{name} {most:g} at most" for name, most in lacking.items()),
    }
    fix = f"ask for less, after: batchonnx stop {job.id}; or add a node: it waits for 15 minutes"
    return ClusterError(Problem("the job waits for what no node of the cluster has", facts, fix))


def _last_line(job: SubmittedJob, told: Sequence[Told]) -> str:
    said = [one.text.strip() for one in told if one.kind == "text" and one.text.strip()]
    return _sentence(said[-1] if said else job.message)


def _sentence(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" .")]
    return lines[-1][:500] if lines else "nothing"
