"""A job's log as it grows, however often the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from batchonnx.cluster.channel import Lines, Told
from batchonnx.cluster.connect import Cluster
from batchonnx.cluster.jobs import SubmittedJob, wait_until

AGAIN_S = 1.0


def follow_log(cluster: Cluster, job_id: str, on_line: Callable[[Told], None]) -> SubmittedJob:
    """Call `on_line` with each line of a job's log, from its beginning, until the job is over.

    Raises ClusterError if the cluster is gone.
    """
    told, is_whole = 0, False
    while not is_whole:
        told, is_whole = asyncio.run(_tail(cluster, job_id, told, on_line))
        job = wait_until(cluster, job_id, lambda now: now.is_over, AGAIN_S)
        is_whole = is_whole and job.is_over
    return job


def lines_of(log: str) -> Sequence[Told]:
    """A log's lines."""
    return list(_cut(log))


def _cut(log: str) -> Iterator[Told]:
    lines = Lines()
    yield from lines.feed(log)
    yield from lines.end()


async def _tail(
    cluster: Cluster, job_id: str, told: int, on_line: Callable[[Told], None]
) -> tuple[int, bool]:
    """Follow once, from the beginning; the first `told` lines are known. Returns how many are
    now, and whether the cluster itself has ended it."""
    lines, seen = Lines(), 0

    def tell(found: Iterator[Told]) -> None:
        nonlocal seen, told
        for one in found:
            seen += 1
            if seen > told:
                told = seen
                on_line(one)

    try:
        async for chunk in _chunks(cluster, job_id):
            tell(lines.feed(chunk))
    except (RuntimeError, OSError):  # broken off; whether the job is over will be asked next
        return told, False
    tell(lines.end())
    return told, True


async def _chunks(cluster: Cluster, job_id: str) -> AsyncIterator[str]:
    import aiohttp

    try:
        async for chunk in cluster.client.tail_job_logs(job_id):
            yield str(chunk)
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
