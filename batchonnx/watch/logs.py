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

LOGGER = logging.getLogger("batchonnx")
LOGGER.addHandler(logging.NullHandler())

FIELDS = ("job", "run", "shard", "host")
"""What a record has beside its message, as attributes."""

PROGRESS_EVERY_S = 10.0
"""Of progress, one record in so many seconds."""


def log_event(event: Event, run: str | None) -> None:
    """Log what has happened; shards on the level DEBUG, or a run of 100,000 would fill disks."""
    match event:
        case RunStarted():
            job = event.plan.job.job.name
            _log(logging.INFO, f"run started: {job}, {len(event.plan.shards)} shards", run, job=job)
        case ShardCommitted(commit):
            if LOGGER.isEnabledFor(logging.DEBUG):
                told = f"shard committed: {commit.rows_in} rows in {commit.took_s:.3f} s by {commit.worker}"
                _log(logging.DEBUG, told, run, shard=commit.shard, host=commit.host)
        case Warned(text):
            _log(logging.WARNING, text, run)
        case Published(_, summary):
            told = "published" if summary.is_new else "published before, nothing to do"
            told += f": {summary.rows_in} rows in, {summary.predicted} predicted, "
            told += f"{summary.quarantined} quarantined, {summary.filtered} filtered out"
            _log(logging.INFO, told, run, job=summary.job)
        case Failed(_, error):
            _log(logging.ERROR, f"failed: {first_words(error)}", run)
        case _:
            pass


def log_progress(progress: Progress, run: str | None) -> None:
    """A moment of the run, for those who ask for it."""
    total = f" of {progress.rows_total}" if progress.rows_total is not None else ""
    rate = progress.rows_in / max(progress.elapsed_s, 1e-9)
    told = f"progress: {progress.rows_done}{total} rows, {rate:.0f} rows/s, "
    told += f"{progress.shards} of {progress.shards_total} shards, {progress.quarantined} quarantined"
    _log(logging.INFO, told, run)


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


_HOST = platform.node()


def _log(
    level: int,
    text: str,
    run: str | None,
    *,
    job: str | None = None,
    shard: int | None = None,
    host: str = "",
) -> None:
    LOGGER.log(level, "%s", text, extra={"job": job, "run": run, "shard": shard, "host": host or _HOST})
