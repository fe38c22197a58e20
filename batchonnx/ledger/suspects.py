"""Shards that were being scored when a process died: one that saw two deaths may be their cause.

A segmentation fault, or the kernel's end of a process that takes too much memory, leaves no word of
the row at fault. What is left is a mark for each shard that was begun and not committed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from batchonnx.ledger.durable import replace_file

STARTED, DEATHS = "_batchonnx/started", "_batchonnx/deaths.json"
ENOUGH = 2
"""Deaths that make a shard a suspect: one alone is more likely a power cut, or somebody's kill -9."""


def mark_started(run: Path, shard: int) -> None:
    """Note that a shard is being scored. Not synced: the mark outlives the process, which is enough."""
    with suppress(OSError):  # on a full disk the run ends by other means
        (run / STARTED / str(shard)).touch()


def clear_started(run: Path, shard: int) -> None:
    """Note that a shard's scoring has ended well."""
    (run / STARTED / str(shard)).unlink(missing_ok=True)


def clear_all_started(run: Path) -> None:
    """Note that all scoring has ended, with no worse than an error that was told."""
    with suppress(FileNotFoundError):
        for path in (run / STARTED).iterdir():
            path.unlink(missing_ok=True)


def count_deaths(run: Path) -> frozenset[int]:
    """Count a death for each shard that is marked, and clear the marks. The suspects. Raises OSError."""
    (run / STARTED).mkdir(exist_ok=True)
    marked = [path for path in (run / STARTED).iterdir() if path.name.isdecimal()]
    deaths = _read(run / DEATHS)
    for path in marked:
        deaths[path.name] = deaths.get(path.name, 0) + 1
    if marked:
        replace_file(run / DEATHS, json.dumps(deaths).encode())
    for path in marked:
        path.unlink(missing_ok=True)
    return frozenset(int(shard) for shard, count in deaths.items() if count >= ENOUGH)


def _read(path: Path) -> dict[str, int]:
    """What was counted so far; a hint that is lost costs another death, no more."""
    try:
        deaths = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return deaths if isinstance(deaths, dict) else {}
