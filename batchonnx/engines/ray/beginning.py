"""A run's cluster is reached, and its first actors are started, while the plan is made."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import perf_counter
from typing import Any, Self

from batchonnx.engines.ray.actor import Actor
from batchonnx.engines.ray.connect import connected
from batchonnx.engines.ray.hiring import Hiring
from batchonnx.engines.ray.nodes import cluster_nodes
from batchonnx.engines.ray.placement import capacity, span, wanted
from batchonnx.job.spec import Engine

AFTER_S = 0.3
"""A plan that takes less isn't overtaken: a job with a mistake, or one that is done, starts no cluster."""

AHEAD = 32
"""So many actors at most are started for a plan that may turn out to have fewer shards."""

LOOK_S = 0.1


class Beginning:
    """Begun as a context, before the plan is made; ends with all that it has started.

    One thread reaches the cluster, keeps it and leaves it: Ray's processes end with the very thread that has
    started them. begun_at, reached_at, here_at: when that was, when the cluster could be used, and when the
    first actor was there (perf_counter; None where it wasn't yet). actor: the class of what is started.
    """

    def __init__(self, asked: Engine, actor: type = Actor) -> None:
        self._asked, self._actor = asked, actor
        self._is_wanted, self._is_decided, self._is_over = (threading.Event() for _ in range(3))
        self._hiring: Hiring | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._keep, name="ray", daemon=True)
        self.begun_at = perf_counter()
        self.reached_at: float | None = None
        self.here_at: float | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hiring(self) -> Hiring:
        """The plan is there: give what has been begun. Raises DependencyError, ClusterError."""
        self._is_wanted.set()
        self._is_decided.wait()
        if self._error is not None:
            raise self._error
        assert self._hiring is not None, "decided: it is there, or there was an error"
        return self._hiring

    def close(self) -> None:
        """End those hired ahead whom nobody has taken over, and leave the cluster. Again: nothing."""
        self._is_over.set()
        self._is_wanted.set()
        self._thread.join()

    def _keep(self) -> None:
        self._is_wanted.wait(AFTER_S)
        try:
            if not self._is_over.is_set():
                with connected(self._asked.address):
                    self._stay()
        except BaseException as error:  # handed over: whoever asks for the cluster raises it
            self._error = error
        finally:
            self._is_decided.set()

    def _stay(self) -> None:
        self.reached_at = perf_counter()
        hiring = self._hiring = Hiring(self._asked.resources, self._actor)
        try:
            room = capacity(cluster_nodes(), wanted(self._asked.resources))
            _, most = span(self._asked, room)
            hiring.ahead += [hiring.hire() for _ in range(min(most, room, AHEAD))]
            self._is_decided.set()
            self._watch([member.call for member in hiring.ahead])
            self._is_over.wait()
        finally:
            for member in hiring.ahead:
                with suppress(Exception):  # Ray itself may be gone
                    member.end()

    def _watch(self, calls: list[Any]) -> None:
        """Note when the first actor is there, as long as there is no plan."""
        import ray

        while calls and not self._is_wanted.is_set():
            if ray.wait(calls, num_returns=1, timeout=LOOK_S)[0]:
                self.here_at = perf_counter()
                return
