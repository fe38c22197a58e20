"""KubeRay's RayCronJob: a Ray cluster for each tick, made by the operator."""

from __future__ import annotations

from batchonnx.schedule.render.manifest import (
    dump,
    job_map,
    job_path,
    name_of,
    resource,
    service_account,
    settings,
)
from batchonnx.schedule.render.ray_pods import check_engine, ray_job_spec
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

_ABOUT = """\
RayCronJob is alpha: the operator needs the feature gate RayCronJob (Helm: featureGates). Without it: --target
kubernetes --cluster.
KubeRay doesn't tell a pod which tick it was made for. So `schedule tick` takes the newest one, and what was
missed and schedule.catch_up covers; it prints each logical date. KubeRay lets runs overlap and makes up by
itself what it has missed: batchonnx's own lease keeps ticks one after the other, and what is published is
left alone."""


def render(scheduled: Scheduled, options: RenderOptions) -> str:
    """Service account, job file and RayCronJob. Raises JobFileError for paths that mean this machine."""
    check_engine(scheduled)
    name = name_of(scheduled)
    words = ["batchonnx", "schedule", "tick", job_path(options), "--quiet", *settings(scheduled)]
    spec = {
        "schedule": scheduled.spec.cron,
        "timeZone": scheduled.spec.time_zone,
        "jobTemplate": ray_job_spec(scheduled, options, name, words),
    }
    return dump(
        [
            service_account(name, options),
            *job_map(scheduled, options),
            resource("RayCronJob", "ray.io/v1", name, options, spec=spec),
        ],
        _ABOUT,
    )
