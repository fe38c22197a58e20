"""One run of a sample, in a process of its own: `python -m batchonnx.rehearsal.process FOLDER`.

FOLDER holds `asked.json`, and `told.json` when the run has ended, well or not; one that is killed tells
nothing. It ends with the process that has asked for it, however that dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from batchonnx.driver.run import RunOptions, run_job
from batchonnx.engines.events import Event, RunStarted
from batchonnx.errors import BatchonnxError
from batchonnx.job.load import job_from_dict
from batchonnx.ledger.durable import libc
from batchonnx.planning.plan import Plan
from batchonnx.planning.sample import Sample, take_sample
from batchonnx.rehearsal.failing import fail_requests
from batchonnx.rehearsal.rehearse import ASKED, DONE, TOLD, Faults, Watched
from batchonnx.runtime.machine import peak_bytes, resident_bytes
from batchonnx.runtime.parent import end_with_parent
from batchonnx.scoring.progress import Progress, RunSummary

OF_THE_COMMAND = ("batchonnx.api", "batchonnx.report.live")
"""What `batchonnx run` imports besides: a try is to begin no sooner."""

PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Run what was asked for: the exit code that `batchonnx run` would have."""
    asked = json.loads((folder / ASKED).read_text())
    _end_with(asked["asker"]["pid"])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    for name in OF_THE_COMMAND:
        import_module(name)
    told: dict[str, Any]
    try:
        if asked["faults"] is not None:
            fail_requests(Faults(**asked["faults"]))
        summary, watched = _run(asked, folder / DONE, stop)
        told, code = {"summary": asdict(summary), "watched": asdict(watched)}, 0
    except BatchonnxError as error:
        told, code = error.as_dict(), error.exit_code
    (folder / TOLD).write_text(json.dumps(told))
    return code


def _end_with(asker: int) -> None:
    """Have this process end when that one does.

    Where the kernel can do it (prctl(2), Linux), it does: a drill may have been killed while this one was
    stopped, and could look for nothing.
    """
    end_with_parent()
    with suppress(AttributeError):
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asker:
        os._exit(1)


def _run(asked: dict[str, Any], done: Path, stop: threading.Event) -> tuple[RunSummary, Watched]:
    sample = Sample(**asked["sample"])
    planned: list[tuple[Plan, int]] = []
    owned_s: float | None = None
    trace: list[tuple[float, int]] = []

    def narrow(plan: Plan) -> Plan:
        taken = take_sample(plan, sample)
        planned.append((taken, resident_bytes()))
        return taken

    def note(event: Event) -> None:
        nonlocal owned_s
        now_s = perf_counter() - asked["began"]
        if isinstance(event, RunStarted):
            owned_s = now_s
            done.write_text("0")
        elif isinstance(event, Progress):
            trace.append((now_s, event.rows_in))
            done.write_text(str(event.shards))

    # A rehearsal is nobody's news.
    told = {key: part for key, part in asked["job"].items() if key not in ("metrics", "notify")}
    job = job_from_dict(told, asked["folder"])
    summary = run_job(job, RunOptions(narrow=narrow), stop, note)
    ((plan, base_bytes),) = planned
    seen = Watched(plan.rows, len(plan.shards), base_bytes, peak_bytes(), owned_s, trace)
    return summary, seen


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
