"""A run as records of Python's logging, each with its run, shard and host.

The logger is `batchonnx`: whoever embeds batchonnx sets it up as any other; the command line does with
`--log-format`.
"""

from __future__ import annotations

import json
import logging
import platform
from datetime import UTC, datetime

from batchonnx.engines.events import Event, Failed, Published, RunStarted, ShardCommitted, Warned
from batchonnx.errors import BatchonnxError
from batchonnx.scoring.progress import Progress
from batchonnx.watch.pace import Pace

LOGGER = logging.getLogger("batchonnx")
LOGGER.addHandler(logging.NullHandler())

FIELDS = ("job", "run", "shard", "host")
"""What a record has beside its message, as attributes."""

PROGRESS_EVERY_S = 10.0
"""Of progress, one record in so many seconds."""

_HOST = platform.node()


class Log:
    """Logs what a run does; shards on the level DEBUG, or a run of 100,000 would fill disks."""

    def __init__(self) -> None:
        self._run: str | None = None
        self._job: str | None = None
        self._pace = Pace()
        self._said_at = 0.0

    def __call__(self, event: Event) -> None:
        """Log an event, and progress now and then."""
        match event:
            case RunStarted(run, plan):
                self._run, self._job = run, plan.job.job.name
                self._log(logging.INFO, f"run started: {len(plan.shards)} shards to {plan.output}")
            case ShardCommitted(commit):
                if LOGGER.isEnabledFor(logging.DEBUG):
                    told = f"shard committed: {commit.rows_in} rows in {commit.took_s:.3f} s"
                    self._log(logging.DEBUG, f"{told} by {commit.worker}", commit.shard, commit.host)
            case Warned(text):
                self._log(logging.WARNING, text)
            case Published(_, summary):
                told = "published" if summary.is_new else "published before, nothing to do"
                told += f": {summary.rows_in} rows in, {summary.predicted} predicted, "
                told += f"{summary.quarantined} quarantined, {summary.filtered} filtered out"
                self._log(logging.INFO, told)
            case Failed(_, error):
                self._log(logging.ERROR, f"failed: {first_words(error)}")
            case _:
                self._progress(event)

    def close(self) -> None:
        """Nothing is held."""

    def _progress(self, progress: Progress) -> None:
        self._pace.note(progress)
        if progress.elapsed_s - self._said_at < PROGRESS_EVERY_S:
            return
        self._said_at = progress.elapsed_s
        total = f" of {progress.rows_total}" if progress.rows_total is not None else ""
        told = f"progress: {progress.rows_done}{total} rows, {self._pace.rate:.0f} rows/s"
        if self._pace.eta_s is not None:
            told += f", {self._pace.eta_s:.0f} s to go"
        if self._pace.slowest is not None:
            told += f", {self._pace.slowest} holds it back"
        self._log(logging.INFO, told)

    def _log(self, level: int, text: str, shard: int | None = None, host: str = _HOST) -> None:
        extra = {"job": self._job, "run": self._run, "shard": shard, "host": host}
        LOGGER.log(level, "%s", text, extra=extra)


def first_words(error: BaseException) -> str:
    """An error in a line."""
    if isinstance(error, BatchonnxError):
        return "; ".join(problem.title for problem in error.problems)
    return f"{type(error).__name__}: {error}"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, message, job, run, shard, host; unknown ones are null."""

    def format(self, record: logging.LogRecord) -> str:
        """A traceback, where there is one, is the key `traceback`."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{name: getattr(record, name, None) for name in FIELDS},
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record as a line for people: time, level, run, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Shard and host where they are known."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        where = [f"{name}={value}" for name in FIELDS if (value := getattr(record, name, None)) is not None]
        return " ".join([at, record.levelname, *where, record.getMessage()])
