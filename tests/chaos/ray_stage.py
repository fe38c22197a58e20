"""A Ray cluster on which things go wrong: what can, and how it is mended for the next run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchonnx.engines.ray.reaper import MARK, belonging
from tests.chaos import hasty
from tests.cluster.head import free_ports
from tests.integration.ray_cluster import add_node, own_ray, start_cluster

ROOT = Path(__file__).parents[2]
RAYLETS = 3
END_S = 60
PATIENCE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "8",
}
"""Of Ray, which else takes a minute to be sure."""
PAST_ALL_S = 10.0
"""Longer than Ray and our driver wait for anybody."""

OF_RAY = (
    "gcs_server",
    "raylet",
    "ray::IDLE",
    "default_worker",
    "dashboard",
    "log_monitor",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "runtime_env",
    "monitor.py",
    "ray_process_reaper",
    "setup_worker",
    "multiprocessing",
)
"""What the command lines of a cluster's own processes hold; workers that have nothing to do included."""


class Stage:
    """A cluster of three raylets with a dashboard. spoiled: nodes that are replaced before the next run."""

    def __init__(self) -> None:
        self.spoiled: set[Any] = set()
        self.start()

    def start(self) -> None:
        """A new cluster."""
        port, agent = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        ports = {"dashboard_port": port, "dashboard_agent_listen_port": agent}
        self.cluster = start_cluster(RAYLETS, include_dashboard=True, **ports)
        self.is_dead = False

    def mend(self) -> None:
        """Have three sound raylets again."""
        if self.is_dead:
            self.start()
        for node in list(self.cluster.worker_nodes):
            if node in self.spoiled or not is_up(node):
                self.cluster.remove_node(node, allow_graceful=False)
        self.spoiled.clear()
        if not is_up(self.cluster.head_node):
            self.kill()
            self.start()
        while len(self.cluster.worker_nodes) < RAYLETS - 1:
            add_node(self.cluster)
        for node in list(self.cluster.worker_nodes)[RAYLETS - 1 :]:
            self.cluster.remove_node(node, allow_graceful=False)

    def kill(self) -> None:
        """Kill -9 of all that is Ray's own, the head included; actors and drivers have to find out."""
        for node in self.cluster.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        self.is_dead = True

    def close(self) -> None:
        """The end of it."""
        if not self.is_dead:
            self.cluster.shutdown()

    def sound_nodes(self) -> list[Any]:
        """Nodes to which nothing has happened yet, but for the head's."""
        found = [node for node in self.cluster.worker_nodes if node not in self.spoiled and is_up(node)]
        return sorted(found, key=raylet_of)

    def processes(self, name: str) -> list[int]:
        """Those of all clusters and drivers of this test that have a name in their command line."""
        return sorted(pid for pid, told in self._belonging() if name in told)

    def orphans(self) -> list[str]:
        """Processes that belong neither to the cluster nor to anybody who lives."""
        return [f"{pid} {told}" for pid, told in self._belonging() if not any(map(told.__contains__, OF_RAY))]

    def _belonging(self) -> Iterator[tuple[int, str]]:
        folder = Path(os.environ["RAY_TMPDIR"])
        for pid in belonging(os.environ[MARK], folder, os.getpid()):
            with suppress(OSError):
                told = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if told:  # a zombie has none
                    yield pid, told


@contextmanager
def ray_stage() -> Iterator[Stage]:
    """A cluster that is to be disturbed; nothing is left of it."""
    with own_ray() as patch:
        for name, value in PATIENCE.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.delenv("RAY_ADDRESS", raising=False)
        stage = Stage()
        try:
            yield stage
        finally:
            stage.close()


def until(is_so: Callable[[], object], what: Callable[[], object]) -> None:
    """Wait until something has come about. what: to be shown if it doesn't."""
    end = time.monotonic() + END_S
    while not is_so():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def is_up(node: Any) -> bool:
    """Whether its raylet runs."""
    raylets = node.all_processes.get("raylet", [])
    return bool(raylets) and all(told.process.poll() is None for told in raylets)


def raylet_of(node: Any) -> int:
    """A node's raylet."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


# What happens


def kill_an_actor(stage: Stage, draw: random.Random) -> None:
    """kill -9."""
    _signal(_drawn(draw, stage.processes("ray::Actor")), signal.SIGKILL)


def kill_a_raylet(stage: Stage, draw: random.Random) -> None:
    """kill -9; another one comes in its place."""
    for node in _drawn(draw, stage.sound_nodes()):
        stage.cluster.remove_node(node, allow_graceful=False)
        add_node(stage.cluster)


def kill_the_driver(stage: Stage, draw: random.Random) -> None:
    """kill -9, wherever it runs."""
    _signal(stage.processes("tests.chaos.hasty run") + stage.processes("batchonnx drive"), signal.SIGKILL)


def kill_the_cluster(stage: Stage, draw: random.Random) -> None:
    """kill -9 of all of it."""
    stage.kill()


def stop_an_actor(stage: Stage, draw: random.Random) -> None:
    """Its shards go to others, and it is replaced; then it wakes, and wants to commit."""
    _asleep(_drawn(draw, stage.processes("ray::Actor")))


def stop_a_raylet(stage: Stage, draw: random.Random) -> None:
    """Its actors go on, while Ray takes the node for dead."""
    for node in _drawn(draw, stage.sound_nodes()):
        stage.spoiled.add(node)
        _asleep([raylet_of(node)])


def stop_a_node(stage: Stage, draw: random.Random) -> None:
    """Raylet and actors at once, as when a machine hangs and comes back."""
    for node in _drawn(draw, stage.sound_nodes()):
        stage.spoiled.add(node)
        raylet = raylet_of(node)
        actors = [pid for pid in stage.processes("ray::Actor") if _parent(pid) == raylet]
        _asleep([raylet, *actors])


def add_a_raylet(stage: Stage, draw: random.Random) -> None:
    """One more than there were."""
    add_node(stage.cluster)


def drain_a_node(stage: Stage, draw: random.Random) -> None:
    """As a machine that will be taken away in a minute; another one comes in its place."""
    for node in _drawn(draw, stage.sound_nodes()):
        stage.spoiled.add(node)
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
        command += ["--address", stage.cluster.address, "--node-id", node.node_id]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken away"]
        command += ["--deadline-remaining-seconds", "60"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        add_node(stage.cluster)


Fault = Callable[[Stage, random.Random], None]

FAULTS: dict[str, Fault] = {
    "an actor dies": kill_an_actor,
    "a raylet dies": kill_a_raylet,
    "the driver dies": kill_the_driver,
    "the cluster dies": kill_the_cluster,
    "an actor sleeps": stop_an_actor,
    "a raylet sleeps": stop_a_raylet,
    "a node sleeps": stop_a_node,
    "a raylet comes": add_a_raylet,
    "a node drains": drain_a_node,
}


def _drawn(draw: random.Random, some: list[Any]) -> list[Any]:
    """One of them, if there is one."""
    return [draw.choice(some)] if some else []


def _asleep(pids: list[int]) -> None:
    _signal(pids, signal.SIGSTOP)
    time.sleep(PAST_ALL_S)
    _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        told = Path(f"/proc/{pid}/stat").read_text()
        return int(told.rpartition(")")[2].split()[1])
    return None


assert PAST_ALL_S > hasty.SILENT_S + hasty.GONE_S
