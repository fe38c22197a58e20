"""What it costs to be watched: a run with live view, events, a log and metrics, beside one with none."""

from __future__ import annotations

import os
import pty
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from time import perf_counter, thread_time

from batchonnx import api
from batchonnx.report.event_lines import EventLines
from batchonnx.report.live import live_view

PORT = 19464


@contextmanager
def terminal() -> Iterator[None]:
    """Standard error is a terminal that somebody reads."""
    ours, theirs = pty.openpty()

    def read() -> None:
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # it is closed
            pass

    threading.Thread(target=read, daemon=True).start()
    with os.fdopen(theirs, "w") as screen, redirect_stderr(screen):
        yield


def unwatched(folder: Path) -> dict[str, float]:
    """From the job file to the published result, and nobody looks. driver_s: CPU of the thread that tells."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    begin, spent = perf_counter(), thread_time()
    api.run(folder / "job.yaml")
    return {"seconds": perf_counter() - begin, "driver_s": thread_time() - spent}


def watched(folder: Path) -> dict[str, float]:
    """The same with a block on a terminal, events in a file and metrics on a port."""
    import prometheus_client  # noqa: F401 imports are left out
    import rich.live  # noqa: F401

    shutil.rmtree(folder / "out", ignore_errors=True)
    with tempfile.TemporaryFile("w") as events, terminal():
        begin, spent = perf_counter(), thread_time()
        with live_view(quiet=False) as show:
            api.run(folder / "job.yaml", on_progress=show, on_event=EventLines(events), metrics_port=PORT)
        return {"seconds": perf_counter() - begin, "driver_s": thread_time() - spent}
