"""A Ray cluster as KubeRay describes it: head, workers that stay, workers on spot nodes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from batchonnx.errors import JobFileError, Problem
from batchonnx.schedule.render.manifest import (
    Resource,
    container_security,
    env_from,
    job_mounts,
    job_volumes,
    pod_security,
)
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

RAY_VERSION = "2.60.0"
METRICS_PORT, AGENT_PORT = 8080, 52365
DRAIN_S = 90
"""How long a worker has to finish or give back its shards: clouds warn 30 to 120 s ahead."""

HEAD_CPUS, WORKER_CPUS = 2, 4

_DRAIN = shlex.join(
    [
        *("ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", "the pod is being taken away", "--deadline-remaining-seconds", str(DRAIN_S)),
    ]
)


def check_engine(scheduled: Scheduled) -> None:
    """Refuse a job whose engine would leave a cluster's workers idle. Raises JobFileError."""
    if scheduled.job.job.engine.name != "ray":
        facts = {"job": scheduled.job.where("engine.name"), "found": f"name: {scheduled.job.job.engine.name}"}
        fix = "write engine: {name: ray, wait_s: 600}; or render it for kubernetes without a cluster"
        raise JobFileError(Problem("the job would leave a Ray cluster's workers idle", facts, fix))


def ray_cluster_spec(scheduled: Scheduled, options: RenderOptions, account: str) -> Resource:
    """`RayCluster.spec`. The head scores nothing: what dies with it is the whole cluster."""
    return {
        "rayVersion": RAY_VERSION,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "idleTimeoutSeconds": 60,
            "resources": {
                "requests": {"cpu": "200m", "memory": "512Mi"},
                "limits": {"cpu": "500m", "memory": "1Gi"},
            },
            "securityContext": container_security(),
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "metrics-export-port": str(METRICS_PORT)},
            "template": _pod(scheduled, options, account, "ray-head", HEAD_CPUS),
        },
        "workerGroupSpecs": [
            _workers(scheduled, options, account, "steady", most=2, is_spot=False),
            _workers(scheduled, options, account, "spot", most=8, is_spot=True),
        ],
    }


def ray_job_spec(
    scheduled: Scheduled, options: RenderOptions, account: str, words: Sequence[str]
) -> Resource:
    """`RayJob.spec`: a cluster that lives as long as the command, which may be run again at any time."""
    return {
        "entrypoint": shlex.join(words),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 3600,
        "backoffLimit": 2,
        "runtimeEnvYAML": f"env_vars:\n  RAY_JOB_STOP_WAIT_TIME_S: '{DRAIN_S}'\n",
        "rayClusterSpec": ray_cluster_spec(scheduled, options, account),
    }


def _workers(
    scheduled: Scheduled, options: RenderOptions, account: str, name: str, *, most: int, is_spot: bool
) -> Resource:
    template = _pod(scheduled, options, account, "ray-worker", WORKER_CPUS)
    spec = template["spec"]
    spec["terminationGracePeriodSeconds"] = DRAIN_S + 30
    spec["containers"][0]["lifecycle"] = {
        "preStop": {"exec": {"command": ["/bin/sh", "-c", f"{_DRAIN} && sleep {DRAIN_S}"]}}
    }
    if is_spot:
        spec["nodeSelector"] = {"batchonnx.dev/nodes": "spot"}
        spec["tolerations"] = [
            {"key": "batchonnx.dev/spot", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Exists", "effect": "NoSchedule"},
        ]
    return {
        "groupName": name,
        "replicas": 0 if is_spot else 1,
        "minReplicas": 0 if is_spot else 1,
        "maxReplicas": most,
        "rayStartParams": {"metrics-export-port": str(METRICS_PORT)},
        "template": template,
    }


def _pod(scheduled: Scheduled, options: RenderOptions, account: str, name: str, cpus: int) -> dict[str, Any]:
    """A pod template whose metrics Prometheus finds by its annotations."""
    size = {"cpu": str(cpus), "memory": f"{2 * cpus}Gi"}
    ports = [
        {"name": "metrics", "containerPort": METRICS_PORT},
        {"name": "agent", "containerPort": AGENT_PORT},
    ]
    if name == "ray-head":
        ports += [{"name": "gcs", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}]
        ports += [{"name": "client", "containerPort": 10001}]
    return {
        "metadata": {
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(METRICS_PORT),
                "prometheus.io/path": "/metrics",
            }
        },
        "spec": {
            "serviceAccountName": account,
            "securityContext": pod_security(),
            "containers": [
                {
                    "name": name,
                    "image": options.image,
                    "resources": {"requests": size, "limits": size},
                    "ports": ports,
                    **_probes(),
                    "env": [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}],
                    "envFrom": env_from(),
                    "securityContext": container_security(),
                    "volumeMounts": job_mounts(options),
                }
            ],
            "volumes": job_volumes(scheduled, options),
        },
    }


def _probes() -> Resource:
    """In place of KubeRay's own, which call wget: a small image hasn't got it."""
    ask = {"httpGet": {"path": "/api/local_raylet_healthz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    return {
        "readinessProbe": {**ask, "initialDelaySeconds": 10, "periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": {**ask, "initialDelaySeconds": 60, "periodSeconds": 10, "failureThreshold": 30},
    }
