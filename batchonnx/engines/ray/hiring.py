"""What an actor is started with: the resources of the job, and what every one of a run is told."""

from __future__ import annotations

from typing import Any

from batchonnx.engines.ray.actor import Actor, Setup, model_files
from batchonnx.engines.ray.member import Member
from batchonnx.engines.ray.model_cache import MODEL
from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Resources
from batchonnx.planning.plan import Plan
from batchonnx.runtime.model_file import find_model


class Hiring:
    """Starts the actors of a run, each like the other.

    Raises ContractError if the model isn't the planned one any more.
    """

    def __init__(self, plan: Plan, setup: Setup, resources: Resources) -> None:
        import ray

        file = find_model(plan.model.path)
        if file.digest != plan.model.digest:
            facts = {"model": plan.model.path, "planned": plan.model.digest, "found": file.digest}
            raise ContractError(
                Problem("the model has changed meanwhile", facts, "run the same command again")
            )
        self._setup = [ray.put(setup)]
        self._files = [ray.put(model_files(file.local, file.external, MODEL))]
        self._actor = ray.remote(Actor).options(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            memory=resources.memory,
            resources=resources.custom,
            accelerator_type=resources.accelerator_type,
            max_restarts=0,
            max_task_retries=0,
        )
        self._born = 0

    def hire(self) -> Member:
        """Start one more, as soon as there is a place for it."""
        self._born += 1
        actor: Any = self._actor.remote()
        member = Member(f"worker-{self._born}", actor)
        member.ask("coming", actor.hello.remote(self._setup, self._files))
        return member
