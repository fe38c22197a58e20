"""A job's log as it grows, however often the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from batchonnx.cluster.channel import Lines, Told
from batchonnx.cluster.connect import Cluster
from batchonnx.cluster.jobs import SubmittedJob, look_up, read_log, wait_until

AGAIN_S = 1.0
"""After a connection that broke, and between looks at a job that is about to end."""
LAST_KINDS = ("summary", "error")
"""Of the line for programs after which a driver ends."""


def follow_log(cluster: Cluster, job_id: str, on_line: Callable[[Told], None]) -> SubmittedJob:
    """Call `on_line` with each line of a job's log, from its beginning, until the job is over.

    Raises ClusterError if the cluster is gone.
    """
    seen = 0
    job = look_up(cluster, job_id)
    while job is None or not job.is_over:
        seen = asyncio.run(_tail(cluster, job_id, seen, on_line))
        job = wait_until(cluster, job_id, lambda now: now.is_over, AGAIN_S)
    for one in lines_of(read_log(cluster, job_id))[seen:]:
        on_line(one)
    return job


def lines_of(log: str) -> Sequence[Told]:
    """A log's lines."""
    lines = Lines()
    return [*lines.feed(log), *lines.end()]


async def _tail(cluster: Cluster, job_id: str, seen: int, on_line: Callable[[Told], None]) -> int:
    """Follow once, from the beginning, of which `seen` lines are known; returns how many are now.

    Ends with the driver's last line for programs: Ray goes on for seconds. And when the connection breaks.
    """
    lines, number = Lines(), 0
    try:
        async for chunk in _chunks(cluster, job_id):
            for one in lines.feed(chunk):
                number += 1
                if number > seen:
                    seen = number
                    on_line(one)
                if one.kind in LAST_KINDS:
                    return seen
    except OSError:  # broken off; whether the job is over will be asked next
        pass
    return seen


async def _chunks(cluster: Cluster, job_id: str) -> AsyncIterator[str]:
    import aiohttp

    try:
        async for chunk in cluster.client.tail_job_logs(job_id):
            yield str(chunk)
    except (aiohttp.ClientError, RuntimeError) as error:
        raise ConnectionError(str(error)) from error
