"""Lines for a crontab."""

from __future__ import annotations

import shlex
from pathlib import Path

from batchonnx.schedule.render.manifest import settings
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

_LINES = """\
# {name}: add these lines to a crontab (crontab -e).
# CRON_TZ is cronie's (Fedora, RHEL, Arch). Debian's cron doesn't know it: there the machine's zone has to be
# {zone}. In a crontab % is written \\%.
SHELL=/bin/sh
CRON_TZ={zone}
{cron} {command} --at "$(date -u +\\%Y-\\%m-\\%dT\\%H:\\%MZ)"
"""


def render(scheduled: Scheduled, options: RenderOptions) -> str:
    """The minute in which cron starts the command is its tick's."""
    path = options.job_path or str(Path(scheduled.path).absolute())
    command = shlex.join(["batchonnx", "schedule", "tick", path, "--quiet", *settings(scheduled)])
    return _LINES.format(
        name=scheduled.name,
        zone=scheduled.spec.time_zone,
        cron=scheduled.spec.cron,
        command=command.replace("%", "\\%"),
    )
