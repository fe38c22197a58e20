"""What an actor is started with: the resources of the job, and a place for one."""

from __future__ import annotations

from typing import Any

from batchonnx.engines.ray.member import Member
from batchonnx.engines.ray.placement import wanted
from batchonnx.job.spec import Resources


class Hiring:
    """Starts the actors of a run, each like the other, on a cluster that is there.

    actor: the class of what is started, with the methods of `Actor`. had_room: whether a place was free
    before the first one took it. ahead: who was hired before anybody knew of a plan.
    """

    def __init__(self, resources: Resources, actor: type) -> None:
        import ray

        free = ray.available_resources()
        self.had_room = all(free.get(name, 0) >= amount for name, amount in wanted(resources).items())
        self.ahead: list[Member] = []
        self._actor: Any = ray.remote(actor).options(
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
        member.ask("coming", actor.hello.remote())
        return member
