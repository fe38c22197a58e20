"""The driver of a submitted job, on the cluster: the same run as anywhere, told to its log."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from batchonnx import api
from batchonnx.cluster.channel import line, progress_line
from batchonnx.cluster.package import FOLDER, Submission, read_submission
from batchonnx.errors import BatchonnxError, ClusterError, Problem
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile
from batchonnx.report.summary import summary_as_dict
from batchonnx.scoring.progress import Progress, RunSummary

Say = Callable[[str], None]


def drive(folder: Path, drain: threading.Event, say: Say) -> RunSummary:
    """Run the job that a package holds.

    folder: the package. drain: set, the shards in work are the last ones. say: writes a line to the log.
    Raises as `api.run` does, each error told first in a line for programs.
    """
    try:
        submission = read_submission(folder)
        summary = api.run(
            _job(submission, folder),
            on_progress=_Told(say),
            drain=drain,
            **submission.options,
        )
    except BatchonnxError as error:
        say(line("error", error.as_dict()))
        raise
    say(line("summary", summary_as_dict(summary)))
    return summary


def _job(submission: Submission, folder: Path) -> JobFile:
    if not submission.stays:
        return load_job(folder / FOLDER / submission.job, submission.settings)
    path = Path(submission.job)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if found != submission.sha256:
        facts = {"job": str(path), "found": "another file" if found else "no such file on the driver's node"}
        fix = "submit it again; a job with local paths runs on the machine that has them"
        raise ClusterError(Problem("the job file isn't the one that was submitted", facts, fix))
    return load_job(path, submission.settings)


class _Told:
    """Progress, less often the longer a run takes: a log is kept, and read from its beginning."""

    def __init__(self, say: Say) -> None:
        self._say, self._next = say, 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.elapsed_s >= self._next:
            self._next = progress.elapsed_s + min(10.0, max(1.0, progress.elapsed_s / 100))
            self._say(progress_line(progress))
