"""What a cluster shows of its jobs, to whoever has its dashboard or its disk."""

from __future__ import annotations

import urllib.request

from tests.cluster.head import Head

PAGES = ("/api/jobs/", "/api/v0/jobs?detail=1", "/api/v0/actors?detail=1", "/api/v0/runtime_envs?detail=1")


def everything_shown(head: Head) -> bytes:
    """Pages of the dashboard about jobs, and every file below the head's folder."""
    shown = b""
    for page in PAGES:
        with urllib.request.urlopen(head.url + page, timeout=30) as answer:
            shown += answer.read()
    return shown + b"".join(path.read_bytes() for path in head.logs())
