"""Kubernetes' own CronJob: a pod for each tick, or a pod that makes a RayJob for it."""

from __future__ import annotations

import shlex
from typing import Any

from batchonnx.schedule.render.manifest import (
    Resource,
    container_security,
    dump,
    env_from,
    job_map,
    job_mounts,
    job_path,
    job_volumes,
    name_of,
    pod_security,
    resource,
    service_account,
    settings,
)
from batchonnx.schedule.render.ray_pods import DRAIN_S, check_engine, ray_job_spec
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

KUBECTL_IMAGE = "docker.io/alpine/k8s:1.36.2"
MINUTE, SECOND = "TICK_MINUTE", "TICK_SECOND"
"""In the RayJob's text, for the script to fill."""

_ABOUT = """\
The name of a CronJob's pod has the minute of its tick: that is what `schedule tick` is told, not the time at
which the pod came to run. concurrencyPolicy is Allow since the job's own schedule.overlap decides: a tick
waits for the one before, is left out, or takes its place, and what is published is left alone."""

_MINUTE = f"""\
{MINUTE}=${{JOB_NAME##*-}}
case "${MINUTE}" in
  '' | *[!0-9]*) {MINUTE}=$(($(date +%s) / 60)) ;;  # made by hand: kubectl create job --from
esac
"""


def render(scheduled: Scheduled, options: RenderOptions) -> str:
    """Service account, job file and CronJob; with a cluster, the RayJob and the right to make it, too.

    Raises JobFileError for paths that mean this machine.
    """
    name = name_of(scheduled)
    account = service_account(name, options)
    if options.is_cluster:
        check_engine(scheduled)
        launcher = f"{name}-launcher"
        resources = [
            account,
            *job_map(scheduled, options),
            service_account(launcher, options),
            *_right_to_launch(launcher, options),
            _ray_job(scheduled, options),
            _cron_job(scheduled, options, _launching(scheduled)),
        ]
    else:
        resources = [
            account,
            *job_map(scheduled, options),
            _cron_job(scheduled, options, _scoring(scheduled, options)),
        ]
    return dump(resources, _ABOUT)


def _cron_job(scheduled: Scheduled, options: RenderOptions, pod: Resource) -> Resource:
    spec = {
        "schedule": scheduled.spec.cron,
        "timeZone": scheduled.spec.time_zone,
        "concurrencyPolicy": "Allow",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 86400, "template": pod}},
    }
    return resource("CronJob", "batch/v1", name_of(scheduled), options, spec=spec)


def _pod(account: str, container: Resource, volumes: list[Resource], **rest: Any) -> Resource:
    job_name = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    container = {
        **container,
        "env": [{"name": "JOB_NAME", "valueFrom": job_name}],
        "securityContext": container_security(),
    }
    return {
        "spec": {
            "serviceAccountName": account,
            "restartPolicy": "Never",
            "securityContext": pod_security(),
            **rest,
            "containers": [container],
            "volumes": volumes,
        }
    }


def _scoring(scheduled: Scheduled, options: RenderOptions) -> Resource:
    """A pod that scores, with the local engine. SIGTERM lets it keep what is scored."""
    words = shlex.join(["batchonnx", "schedule", "tick", job_path(options), "--quiet", *settings(scheduled)])
    container = {
        "name": "batchonnx",
        "image": options.image,
        "command": ["/bin/sh", "-c", f'{_MINUTE}exec {words} --at "@$(({MINUTE} * 60))"\n'],
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}},
        "envFrom": env_from(),
        "volumeMounts": job_mounts(options),
    }
    volumes = job_volumes(scheduled, options)
    return _pod(name_of(scheduled), container, volumes, terminationGracePeriodSeconds=DRAIN_S)


def _launching(scheduled: Scheduled) -> Resource:
    """A pod that makes the tick's RayJob, whose name is the tick's: made twice, the second is refused."""
    name = name_of(scheduled)
    script = (
        f"{_MINUTE}"
        f'if kubectl get rayjob "{name}-${MINUTE}" >/dev/null 2>&1; then\n'
        "  exit 0  # this pod was started twice\n"
        "fi\n"
        f'sed -e "s/{MINUTE}/${MINUTE}/g" -e "s/{SECOND}/$(({MINUTE} * 60))/g" /etc/batchonnx/rayjob.yaml |\n'
        "  kubectl create -f -\n"
    )
    container = {
        "name": "launcher",
        "image": KUBECTL_IMAGE,
        "command": ["/bin/sh", "-c", script],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "500m", "memory": "256Mi"},
        },
        "volumeMounts": [{"name": "rayjob", "mountPath": "/etc/batchonnx", "readOnly": True}],
    }
    volumes: list[Resource] = [{"name": "rayjob", "configMap": {"name": f"{name}-rayjob"}}]
    return _pod(f"{name}-launcher", container, volumes)


def _ray_job(scheduled: Scheduled, options: RenderOptions) -> Resource:
    """The RayJob as text, with words in the places of the tick's time."""
    name = name_of(scheduled)
    words = ["batchonnx", "schedule", "tick", job_path(options), "--quiet", *settings(scheduled)]
    spec = ray_job_spec(scheduled, options, name, [*words, "--at", f"@{SECOND}"])
    job = resource("RayJob", "ray.io/v1", name, options, spec=spec)
    job = {**job, "metadata": {**job["metadata"], "name": f"{name}-{MINUTE}"}}
    text = dump([job], f"made for each tick; {MINUTE} and {SECOND} are its time")
    return resource("ConfigMap", "v1", f"{name}-rayjob", options, data={"rayjob.yaml": text})


def _right_to_launch(name: str, options: RenderOptions) -> list[Resource]:
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    api = "rbac.authorization.k8s.io"
    return [
        resource("Role", f"{api}/v1", name, options, rules=rules),
        resource(
            "RoleBinding",
            f"{api}/v1",
            name,
            options,
            roleRef={"apiGroup": api, "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": options.namespace}],
        ),
    ]
