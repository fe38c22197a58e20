"""An actor as the driver knows it: who it is, what it is at, what it has told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

from batchonnx.engines.ray.actor import Hello, Report

Step = Literal["coming", "entering", "waiting", "looking", "checking", "working"]
"""Says who it is; opens the model; is idle; looks at the first rows; scores the canary; has shards."""


@dataclass
class Member:
    """An actor of a run.

    call: the one in flight, made at asked_at (perf_counter); it may last wait_s with nothing wrong.
    answer: to that, once somebody listens.
    first_of: the shard at whose first rows it looks. rate: shards/s of late. committed_rows: of its
    report's rows, those that are committed. is_entered, is_begun: has opened the model; may be given shards.
    gives_back: its node is to go.
    """

    name: str
    actor: Any
    step: Step = "coming"
    call: Any = None
    answer: Future[Any] | None = None
    asked_at: float = 0.0
    wait_s: float = 0.0
    hello: Hello | None = None
    first_of: int | None = None
    report: Report = field(default_factory=Report)
    rate: float = 0.0
    committed_rows: int = 0
    is_entered: bool = False
    is_begun: bool = False
    is_silent: bool = False
    gives_back: bool = False

    def ask(self, step: Step, call: Any, wait_s: float = 0.0) -> None:
        """Note a call that was made."""
        self.step, self.call, self.asked_at, self.wait_s = step, call, perf_counter(), wait_s
        self.answer = None

    def listen(self, tell: Callable[[Member], None]) -> None:
        """Have a thread of Ray's tell when the call in flight is answered, or its actor has died."""
        self.answer = answer = self.call.future()
        answer.add_done_callback(lambda _: tell(self))

    @property
    def has_answered(self) -> bool:
        """Whether the call in flight isn't any more."""
        return self.answer is not None and self.answer.done()

    def end(self) -> None:
        """End its process, whatever it does."""
        import ray

        ray.kill(self.actor, no_restart=True)
