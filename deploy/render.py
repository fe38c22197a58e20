"""Writes everything under deploy/ that batchonnx can render: for jobs/daily.yaml and jobs/daily-ray.yaml.

python deploy/render.py            (a test compares the files with what this would write)
"""

from __future__ import annotations

from pathlib import Path

from batchonnx.schedule.render.manifest import dump, job_map, resource, service_account
from batchonnx.schedule.render.ray_pods import ray_cluster_spec, ray_job_spec
from batchonnx.schedule.render.target import RenderOptions, render_schedule
from batchonnx.schedule.scheduled import Scheduled, open_scheduled

DEPLOY = Path(__file__).parent
JOBS = DEPLOY.parent / "jobs"
IMAGE = "registry.example.com/batchonnx:0.1.0-cpu"


def rendered() -> dict[str, str]:
    """Path below deploy/ -> text."""
    daily, on_ray = (open_scheduled(JOBS / name, {}) for name in ("daily.yaml", "daily-ray.yaml"))
    there = RenderOptions(IMAGE, "scoring")
    elsewhere = RenderOptions(job_path="/srv/jobs/daily.yaml")
    return {
        "kuberay/raycluster.yaml": _ray_cluster(on_ray),
        "kuberay/rayjob.yaml": _ray_job(on_ray, there),
        "kuberay/raycronjob.yaml": render_schedule(on_ray, "kuberay", there),
        "kubernetes/cronjob.yaml": render_schedule(daily, "kubernetes", there),
        "kubernetes/cronjob-rayjob.yaml": render_schedule(
            on_ray, "kubernetes", RenderOptions(IMAGE, "scoring", is_cluster=True)
        ),
        "airflow/daily_digits.py": render_schedule(daily, "airflow", elsewhere),
        "cron/daily-digits.cron": render_schedule(daily, "cron", elsewhere),
        "ray/start-scheduler.sh": render_schedule(
            on_ray, "ray", RenderOptions(job_path="/srv/jobs/daily-ray.yaml")
        ),
    }


def _ray_cluster(daily: Scheduled) -> str:
    about = """\
A Ray cluster that stays: submit jobs to its head. Workers that stay, and more on spot nodes while there is
work. Nodes for these bear the label batchonnx.dev/nodes=spot, and may bear the taints that are tolerated."""
    options = RenderOptions(IMAGE, "scoring", job_path="none is carried along")
    spec = ray_cluster_spec(daily, options, "batchonnx")
    cluster = resource("RayCluster", "ray.io/v1", "batchonnx", options, spec=spec)
    return dump([service_account("batchonnx", options), cluster], about)


def _ray_job(daily: Scheduled, options: RenderOptions) -> str:
    about = """\
One job in a cluster of its own, which goes when it has ended: all dates of jobs/daily-ray.yaml that are
missing. It may be applied again whatever has become of it: what is published is left alone."""
    name = f"{daily.name}-backfill"
    words = ["batchonnx", "backfill", "/etc/batchonnx/job.yaml", "--from", "2026-11-01", "--quiet"]
    job = resource("RayJob", "ray.io/v1", name, options, spec=ray_job_spec(daily, options, name, words))
    return dump([service_account(name, options), *job_map(daily, options), job], about)


def main() -> None:
    """Write the files in place of those that are there."""
    for path, text in rendered().items():
        (DEPLOY / path).parent.mkdir(parents=True, exist_ok=True)
        (DEPLOY / path).write_text(text)
        print(f"wrote deploy/{path}")


if __name__ == "__main__":
    main()
