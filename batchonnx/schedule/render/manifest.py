"""Kubernetes resources as dicts and as YAML: what all of them have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.spec.source import REGISTRY
from batchonnx.schedule.render.target import RenderOptions
from batchonnx.schedule.scheduled import Scheduled

Resource = Mapping[str, Any]

CARRIED = "/etc/batchonnx/job.yaml"
"""Where the job file lies in a pod, if it is carried along."""
STORE_SECRET = "batchonnx-store"
USER = 65532
LONGEST_NAME = 36
"""KubeRay's limit for a RayCronJob; a CronJob's is 52."""


class _Dumper(yaml.SafeDumper):
    """Lists stand further in than their key, and text of several lines is a block."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # A block can't have spaces at its lines' ends.
    block = re.sub(r"[ \t]+\n", "\n", text)
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", block if style else text, style)


_Dumper.add_representer(str, _text)


def dump(resources: Iterable[Resource], comment: str) -> str:
    """YAML documents with a comment in front."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + yaml.dump_all(
        list(resources), Dumper=_Dumper, width=110, sort_keys=False, allow_unicode=True
    )


def resource(kind: str, api: str, name: str, options: RenderOptions, **rest: Any) -> Resource:
    """A resource of the namespace, with the labels by which all of a schedule's are found."""
    labels = {"app.kubernetes.io/name": "batchonnx", "app.kubernetes.io/instance": name}
    metadata = {"name": name, "namespace": options.namespace, "labels": labels}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def name_of(scheduled: Scheduled) -> str:
    """The schedule's name, as short as Kubernetes wants it."""
    return scheduled.name[:LONGEST_NAME].rstrip("-")


def job_path(options: RenderOptions) -> str:
    """Where pods find the job file."""
    return options.job_path or CARRIED


def job_map(scheduled: Scheduled, options: RenderOptions) -> list[Resource]:
    """The job file, to be carried along; nothing where the image has it.

    Raises JobFileError for paths that mean this machine.
    """
    if options.job_path is not None:
        return []
    _check_reachable(scheduled)
    data = {"job.yaml": scheduled.path.read_text()}
    return [resource("ConfigMap", "v1", f"{name_of(scheduled)}-job", options, data=data)]


def job_volumes(scheduled: Scheduled, options: RenderOptions) -> list[Resource]:
    """The volume that `job_map` becomes, and one for what is written while a pod lives."""
    scratch = {"name": "scratch", "emptyDir": {}}
    if options.job_path is not None:
        return [scratch]
    return [{"name": "job", "configMap": {"name": f"{name_of(scheduled)}-job"}}, scratch]


def job_mounts(options: RenderOptions) -> list[Resource]:
    """Where a container has the volumes."""
    scratch = {"name": "scratch", "mountPath": "/tmp"}
    if options.job_path is not None:
        return [scratch]
    return [{"name": "job", "mountPath": str(Path(CARRIED).parent), "readOnly": True}, scratch]


def settings(scheduled: Scheduled) -> list[str]:
    """The variables of the job file that aren't the date, as options."""
    return [word for key, value in scheduled.variables.items() for word in ("--set", f"{key}={value}")]


def service_account(name: str, options: RenderOptions) -> Resource:
    """Who the pods are: what a cloud gives rights to, so that no keys are needed."""
    return resource("ServiceAccount", "v1", name, options)


def env_from() -> list[Resource]:
    """AWS_ACCESS_KEY_ID and the like, where pods have no rights of their own."""
    return [{"secretRef": {"name": STORE_SECRET, "optional": True}}]


def pod_security() -> Resource:
    """As "restricted" clusters demand."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Resource:
    """No rights but to compute."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _check_reachable(scheduled: Scheduled) -> None:
    job = scheduled.job.job
    inputs = [job.input.path] if isinstance(job.input.path, str) else list(job.input.path or [])
    named = {f"{key}.path": [model.path] for key, model in job.named_models.items()}
    named |= {"input.path": inputs, "output.path": [job.output.path]}
    problems = [
        Problem(
            f"a pod can't see {key}",
            {"job": scheduled.job.where(key), "expected": "a URL, like s3://bucket/…", "found": path},
            "put it into a store; or build an image that has the job and its files, and name --job-path",
        )
        for key, paths in named.items()
        for path in paths
        if ("://" not in path and not path.startswith(REGISTRY)) or path.startswith("file://")
    ]
    functions = [f.python for f in (job.features or {}).values()] + [
        o.python for o in (job.outputs or {}).values()
    ]
    labels = [
        o.labels for o in (job.outputs or {}).values() if isinstance(o.labels, str) and "://" not in o.labels
    ]
    for found in [*filter(None, functions), *labels]:
        facts = {"job": str(scheduled.path), "found": found}
        fix = "build an image that has the job and what lies beside it, and name --job-path"
        problems.append(Problem("a file beside the job isn't carried along", facts, fix))
    if problems:
        raise JobFileError(*problems)
