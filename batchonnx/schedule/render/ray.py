"""A script that starts the foreground scheduler as a job of a Ray cluster, which has no schedules itself."""

from __future__ import annotations

import shlex
from pathlib import Path

from batchonnx.schedule.render.manifest import settings
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

_SCRIPT = """\
#!/bin/sh
# {name}: a small scheduler that sleeps on the cluster at RAY_API_SERVER_ADDRESS (http://HEAD:8265) and runs
# each tick as it comes due. Run this again whenever the head was started anew: what is published is left
# alone, and Ray refuses the submission id of a scheduler that it has already.
set -eu
exec ray job submit --no-wait \\
  --submission-id {id} \\
  --working-dir {folder} \\
  --entrypoint-num-cpus 0 \\
  --runtime-env-json '{{"env_vars": {{"RAY_JOB_STOP_WAIT_TIME_S": "60"}}}}' \\
  -- {command}
"""


def render(scheduled: Scheduled, options: RenderOptions) -> str:
    """The job file's folder travels along."""
    path = Path(options.job_path or scheduled.path.absolute())
    words = ["batchonnx", "schedule", "run", path.name, "--quiet", *settings(scheduled)]
    return _SCRIPT.format(
        name=scheduled.name,
        id=f"{scheduled.name}-scheduler",
        folder=shlex.quote(str(path.parent)),
        command=shlex.join(words),
    )
