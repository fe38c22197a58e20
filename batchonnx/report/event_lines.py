"""What a run does as lines of JSON, for programs that watch it; their schema is `events_schema`.

Keys may be added within one FORMAT; readers leave out what they don't know, events included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal, TextIO

from batchonnx.engines.events import Event, Failed, Published, RunStarted, ShardCommitted, Warned
from batchonnx.errors import BatchonnxError, Problem
from batchonnx.scoring.progress import Progress, RunSummary
from batchonnx.watch.pace import Pace

FORMAT = 1
PROGRESS_EVERY_S = 1.0
"""Of progress, one line in so many seconds; and one at the end."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What every line has. format: of these lines. at: UTC, ISO 8601. run: null before it has begun."""

    format: Literal[1] = 1
    at: str
    run: str | None


@dataclass(frozen=True, kw_only=True)
class RunStartedLine(Line):
    """See docs/cli.md, as for all of them."""

    event: Literal["run-started"] = "run-started"
    job: str
    output: str
    engine: str
    model: str
    fingerprint: str
    version: str
    shards: int
    rows: int | None
    is_resumed: bool


@dataclass(frozen=True, kw_only=True)
class ProgressLine(Line):
    """How far it is."""

    event: Literal["progress"] = "progress"
    elapsed_s: float
    shards: int
    shards_total: int
    rows_done: int
    rows_total: int | None
    rows_per_s: float
    eta_s: float | None
    quarantined: int
    busy_s: Mapping[str, float]
    shares: Mapping[str, float]
    slowest_stage: str | None
    workers: int
    hosts: Mapping[str, int]
    memory: int
    retries: int
    lost: int
    copied: int


@dataclass(frozen=True, kw_only=True)
class ShardCommittedLine(Line):
    """A shard counts."""

    event: Literal["shard-committed"] = "shard-committed"
    shard: int
    part: str
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    bytes: int
    took_s: float
    seconds: Mapping[str, float]
    host: str
    worker: str


@dataclass(frozen=True, kw_only=True)
class WarningLine(Line):
    """Something to know."""

    event: Literal["warning"] = "warning"
    text: str


@dataclass(frozen=True, kw_only=True)
class PublishedLine(Line):
    """The end: the result is there."""

    event: Literal["published"] = "published"
    summary: RunSummary


@dataclass(frozen=True, kw_only=True)
class FailedLine(Line):
    """The end: there is no result."""

    event: Literal["failed"] = "failed"
    error: str
    exit_code: int
    problems: tuple[Problem, ...]


AnyLine = RunStartedLine | ProgressLine | ShardCommittedLine | WarningLine | PublishedLine | FailedLine


def events_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of one line."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(AnyLine).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a line of batchonnx run --json-lines",
        "oneOf": schema.pop("anyOf"),
        **schema,
    }


class EventLines:
    """Writes each event to a text file, flushed at once. See `engines.events.Tell`.

    A file that can't be written any more is a warning; a pipe whose reader has gone is not even that.
    """

    def __init__(self, file: TextIO) -> None:
        self._file: TextIO | None = file
        self._run: str | None = None
        self._pace = Pace()
        self._said_at = float("-inf")
        self._unsaid: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Write it, but not each progress."""
        if isinstance(event, RunStarted):
            self._run = event.run
        if isinstance(event, Progress):
            self._pace.note(event)
            self._unsaid = event
            if event.elapsed_s - self._said_at < PROGRESS_EVERY_S:
                return
        elif isinstance(event, Published | Failed) and self._unsaid is not None:
            self._write(self._unsaid)
        self._write(event)

    def _write(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._said_at, self._unsaid = event.elapsed_s, None
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(asdict(self._line(event)), ensure_ascii=False) + "\n")
            self._file.flush()
        except BrokenPipeError:
            self._file = None
        except OSError as error:
            self._file = None
            logging.getLogger("batchonnx").warning("no more events are written: %s", error.strerror or error)

    def _line(self, event: Event) -> AnyLine:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        match event:
            case RunStarted(run, plan, is_resumed):
                return RunStartedLine(
                    at=at,
                    run=run,
                    job=plan.job.job.name,
                    output=plan.output,
                    engine=plan.job.job.engine.name,
                    model=plan.model.digest,
                    fingerprint=plan.fingerprint,
                    version=version("batchonnx"),
                    shards=len(plan.shards),
                    rows=plan.rows,
                    is_resumed=is_resumed,
                )
            case ShardCommitted(commit):
                told = {key: getattr(commit, key) for key in _OF_COMMITS}
                return ShardCommittedLine(
                    at=at, run=self._run, bytes=sum(part.bytes for part in commit.parts), **told
                )
            case Warned(text):
                return WarningLine(at=at, run=self._run, text=text)
            case Published(run, summary):
                return PublishedLine(at=at, run=run, summary=summary)
            case Failed(run, error):
                ours = error if isinstance(error, BatchonnxError) else None
                return FailedLine(
                    at=at,
                    run=run,
                    error=type(error).__name__,
                    exit_code=ours.exit_code if ours is not None else 1,
                    problems=ours.problems if ours is not None else (Problem(str(error)),),
                )
            case _:
                return self._progress(at, event)

    def _progress(self, at: str, progress: Progress) -> ProgressLine:
        pace = self._pace
        told = {key: getattr(progress, key) for key in _OF_PROGRESS}
        return ProgressLine(
            at=at,
            run=self._run,
            rows_per_s=round(pace.rate, 3),
            eta_s=round(pace.eta_s, 3) if pace.eta_s is not None else None,
            shares={stage: round(share, 4) for stage, share in pace.shares.items()},
            slowest_stage=pace.slowest,
            **told,
        )


_OWN = {field.name for field in fields(Line)} | {"event"}
_OF_COMMITS = {field.name for field in fields(ShardCommittedLine)} - _OWN - {"bytes"}
_OF_PROGRESS = {field.name for field in fields(ProgressLine)} - _OWN
_OF_PROGRESS -= {"rows_per_s", "eta_s", "shares", "slowest_stage"}
