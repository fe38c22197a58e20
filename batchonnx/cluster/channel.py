"""What a submitted job's driver tells in its log, a line each, beside what it says to people.

    batchonnx {"kind": "progress", "shards": 3, "shards_total": 9, ...}

kinds: `ready` (the environment is the right one), `progress`, `error`, `summary`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from batchonnx.errors import Problem
from batchonnx.scoring.progress import DeviceUse, Progress, RunSummary

MARK = "batchonnx "
KINDS = ("ready", "progress", "error", "summary")
"""Those of a line that is meant for programs."""


@dataclass(frozen=True)
class Told:
    """One line of a driver's log. kind: one of KINDS, or `text` for whatever else stands there."""

    kind: str
    text: str
    fields: Mapping[str, Any]


def line(kind: str, told: Mapping[str, Any]) -> str:
    """A line of the log for programs."""
    return MARK + json.dumps({"kind": kind, **told})


def read_line(text: str) -> Told:
    """What a line of the log is; one that only looks like ours is text."""
    text = text.rstrip("\n")
    if text.startswith(MARK + "{"):
        try:
            told = json.loads(text.removeprefix(MARK))
        except ValueError:
            return Told("text", text, {})
        if isinstance(told, dict) and told.get("kind") in KINDS:
            return Told(told.pop("kind"), text, told)
    return Told("text", text, {})


def progress_line(progress: Progress) -> str:
    """A moment of the run, for programs."""
    return line("progress", asdict(progress))


def progress_of(told: Told) -> Progress:
    """A line's moment; keys that a newer driver has are left out."""
    found = _known(Progress, told.fields)
    return Progress(**(found | {"devices": _devices(found)}))


def summary_of(told: Told) -> RunSummary:
    """How a run went, as its last line tells."""
    found = _known(RunSummary, told.fields)
    return RunSummary(**(found | {"notes": tuple(found.get("notes", ())), "devices": _devices(found)}))


def _devices(told: Mapping[str, Any]) -> tuple[DeviceUse, ...]:
    return tuple(DeviceUse(**_known(DeviceUse, one)) for one in told.get("devices", ()))


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in told.items() if name in names}


def problems_of(told: Told) -> tuple[Problem, ...]:
    """What an `error` line names."""
    return tuple(
        Problem(found["title"], found.get("facts", {}), found.get("fix", ""))
        for found in told.fields.get("problems", ())
    )


class Lines:
    """Chunks of a log as they come, cut into whole lines."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, chunk: str) -> Iterator[Told]:
        """The lines that are complete with this chunk."""
        *whole, self._rest = (self._rest + chunk).split("\n")
        yield from map(read_line, whole)

    def end(self) -> Iterator[Told]:
        """What stands behind the last line break."""
        if self._rest:
            yield read_line(self._rest)
        self._rest = ""
