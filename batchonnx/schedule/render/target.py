"""The systems that can run a schedule, and what each is told besides the job."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchonnx.schedule.scheduled import Scheduled

Target = Literal["kuberay", "kubernetes", "airflow", "cron", "ray"]


@dataclass(frozen=True)
class RenderOptions:
    """image, namespace: of Kubernetes. job_path: where the job file lies for whoever runs it; None: it is
    carried along (Kubernetes), or lies where it was read from. is_cluster: a Ray cluster for each tick.
    """

    image: str = "batchonnx:cpu"
    namespace: str = "default"
    job_path: str | None = None
    is_cluster: bool = False


def render_schedule(scheduled: Scheduled, target: Target, options: RenderOptions) -> str:
    """The text of what a system is given. Raises JobFileError for a job that can't be run there."""
    module = import_module(f"batchonnx.schedule.render.{target}")
    text: str = module.render(scheduled, options)
    return text
