"""The processes that a drill has started, and which of them score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SCORING = (b"ray::Actor", b"batchonnx.scoring.hook_process")
"""What the command line of a process that scores has in it: an actor of ours, a process for hooks."""


def workers_of(drill: int) -> list[int]:
    """Processes of this machine that score for a drill's run: children of the run, or of the drill's Ray."""
    return [pid for pid in _below(drill) if any(map(_command(pid).__contains__, SCORING))]


def _below(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            # The name, in brackets, may hold anything: what stands behind the last bracket is fixed.
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.name))
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            yield pid
            waiting.append(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
