"""Runs daily-digits at its ticks: what is rendered here is its time and zone, all else is the job's own.

For Airflow 3 with apache-airflow-providers-standard. catchup is off since `schedule tick` finds what was
missed from what is published; runs may overlap here since the job's schedule.overlap decides what happens.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

COMMAND = "batchonnx schedule tick /srv/jobs/daily.yaml --quiet"
# Of a run by hand the logical date may be missing: then the tick is the newest one.
AT = "{{ (dag_run.logical_date or dag_run.run_after).isoformat() }}"

with DAG(
    dag_id="daily-digits",
    schedule=CronTriggerTimetable("15 2 * * *", timezone="Europe/Berlin"),
    start_date=pendulum.datetime(2026, 11, 1, tz="Europe/Berlin"),
    catchup=False,
    tags=["batchonnx"],
):
    BashOperator(task_id="score", bash_command=f'exec {COMMAND} --at "{AT}"', retries=2)
