"""Tells those whom a job names how its run has ended: by a webhook, or a command."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from batchonnx.engines.events import Event, Failed, Published, RunStarted
from batchonnx.errors import BatchonnxError
from batchonnx.job.spec import JobFile, Notice
from batchonnx.watch.logs import first_words
from batchonnx.watch.webhook import post

FORMAT = 1
"""Of the JSON object; raised by a change that a reader would misread, keys may be added."""

COMMAND_S = 60.0
"""How long a command may take."""

COUNTS = ("rows_in", "predicted", "quarantined", "filtered", "elapsed_s")


class Notify:
    """Waits for the end. A result that was there already is no news.

    Raises OSError, after all were told, with what didn't reach whom; see `watching.Watch`.
    """

    def __init__(self, job: JobFile) -> None:
        self._job = job
        self._output = job.resolve(job.job.output.path)

    def __call__(self, event: Event) -> None:
        """Tell of the end, if this is it."""
        asked = self._job.job.notify
        match event:
            case RunStarted(_, plan):
                self._output = plan.output
            case Published(run, summary) if summary.is_new:
                counts = {key: getattr(summary, key) for key in COUNTS}
                text = f"{summary.predicted:,} rows predicted"
                occasions = {"success": (asked.on_success, text)}
                if summary.quarantined:
                    bad = f"{summary.quarantined:,} of {summary.rows_in:,} rows are in quarantine"
                    occasions["quarantine"] = (asked.on_quarantine, bad)
                self._tell(occasions, run, counts)
            case Failed(run, error):
                self._tell({"failure": (asked.on_failure, first_words(error))}, run, _described(error))
            case _:
                pass

    def close(self) -> None:
        """Nothing is held."""

    def _tell(
        self, occasions: Mapping[str, tuple[Notice | None, str]], run: str | None, more: Mapping[str, Any]
    ) -> None:
        trouble = []
        for occasion, (notice, text) in occasions.items():
            if notice is None:
                continue
            message = {
                "format": FORMAT,
                "event": occasion,
                "text": f"{self._job.job.name}: {text}",
                "job": self._job.job.name,
                "output": self._output,
                "run": run,
                "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "host": platform.node(),
                "version": version("batchonnx"),
                **more,
            }
            body = json.dumps(message, ensure_ascii=False).encode()
            for way in (_by_webhook, _by_command):
                try:
                    way(self._job, notice, body, occasion)
                except (OSError, subprocess.SubprocessError) as error:
                    trouble.append(f"on_{occasion}, {way.__name__.removeprefix('_by_')}: {error}")
        if trouble:
            raise OSError("; ".join(trouble))


def _described(error: BaseException) -> dict[str, Any]:
    """As `--json` tells it; whatever isn't ours is a bug."""
    if isinstance(error, BatchonnxError):
        return error.as_dict()
    return {"error": type(error).__name__, "exit_code": 1, "problems": []}


def _by_webhook(_: JobFile, notice: Notice, body: bytes, occasion: str) -> None:
    if notice.webhook is None and notice.webhook_env is None:
        return
    url = notice.webhook or _variable(notice.webhook_env or "")
    if not url.startswith(("http://", "https://")):
        raise OSError(f"{notice.webhook_env} holds no URL of http or https")
    key = _variable(notice.secret_env) if notice.secret_env is not None else None
    post(url, body, f"msg_{secrets.token_hex(12)}", key)


def _by_command(job: JobFile, notice: Notice, body: bytes, occasion: str) -> None:
    if notice.command is None:
        return
    environment = {**os.environ, "BATCHONNX_EVENT": occasion}
    try:
        done = subprocess.run(
            notice.command,
            input=body,
            cwd=job.folder,
            env=environment,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{notice.command[0]} was ended after {COMMAND_S:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing on standard error"]
        raise OSError(f"{notice.command[0]} ended with {done.returncode}: {said[0]}")


def _variable(name: str) -> str:
    found = os.environ.get(name, "").strip()
    if not found:
        raise OSError(f"the variable {name} isn't set")
    return found
