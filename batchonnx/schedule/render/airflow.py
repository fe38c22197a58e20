"""An Airflow DAG of one task."""

from __future__ import annotations

import json
import shlex
from datetime import date
from pathlib import Path

from batchonnx.schedule.render.manifest import settings
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

_DAG = '''\
"""Runs {title} at its ticks: what is rendered here is its time and zone, all else is the job's own.

For Airflow 3 with apache-airflow-providers-standard. catchup is off since `schedule tick` finds what was
missed from what is published; runs may overlap here since the job's schedule.overlap decides what happens.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

COMMAND = {command}
# Of a run by hand the logical date may be missing: then the tick is the newest one.
AT = "{{{{ (dag_run.logical_date or dag_run.run_after).isoformat() }}}}"

with DAG(
    dag_id={name},
    schedule=CronTriggerTimetable({cron}, timezone={zone}),
    start_date=pendulum.datetime({start}, tz={zone}),
    catchup=False,
    tags=["batchonnx"],
):
    BashOperator(task_id="score", bash_command=f'exec {{COMMAND}} --at "{{AT}}"', retries=2)
'''


def render(scheduled: Scheduled, options: RenderOptions) -> str:
    """A Python file for Airflow's DAG folder."""
    path = options.job_path or str(Path(scheduled.path).absolute())
    words = shlex.join(["batchonnx", "schedule", "tick", path, "--quiet", *settings(scheduled)])
    start = scheduled.calendar.start or date(2026, 1, 1)
    return _DAG.format(
        title=scheduled.name,
        name=json.dumps(scheduled.name),
        cron=json.dumps(scheduled.spec.cron),
        zone=json.dumps(scheduled.spec.time_zone),
        start=f"{start.year}, {start.month}, {start.day}",
        command=json.dumps(words),
    )
