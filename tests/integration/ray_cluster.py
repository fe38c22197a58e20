"""A real Ray cluster of several raylets on this machine, with nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchonnx.engines.ray.reaper import MARK, reap
from tests.cluster.head import free_ports


@contextmanager
def ray_cluster(nodes: int, cpus: int = 1, **head: Any) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`, which RAY_ADDRESS tells of until the block ends.

    head: more for the first node. Whatever becomes of it, its processes are ended and its folder is removed.
    """
    mark, folder = f"tests-{os.getpid()}", Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv(MARK, mark)
        from ray.cluster_utils import Cluster

        options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 100 << 20}
        cluster = None
        try:
            cluster = Cluster(initialize_head=True, head_node_args=options | head)
            for _ in range(nodes - 1):
                add_node(cluster, cpus)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            try:
                if cluster is not None:
                    cluster.shutdown()
            finally:
                reap(mark, folder, os.getpid())
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def autoscaled_cluster(most: int) -> Iterator[str]:
    """A head without a core, and Ray's autoscaler, which starts raylets of one core; gives its address.

    RAY_ADDRESS tells of it until the block ends. Its machines are all this one.
    """
    import ray

    mark, folder = f"tests-{os.getpid()}", Path(tempfile.mkdtemp(prefix="ra-", dir="/tmp"))
    kinds = {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": most},
    }
    (port,) = free_ports(1)
    here = f"{ray.util.get_node_ip_address()}:{port}"
    provider = {"type": "fake_multinode", "use_node_id_as_ip": True, "gcs_address": here}
    provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
    settings = {
        "cluster_name": "fake",
        "max_workers": most,
        "provider": provider,
        "available_node_types": kinds,
        "head_node_type": HEAD,
        "idle_timeout_minutes": 0.1,
        "auth": {"ssh_user": "nobody"},
        "file_mounts": {},
        **{name: [] for name in COMMANDS},
    }
    (folder / "autoscaler.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
    command += [f"--port={port}", "--include-dashboard=false", "--object-store-memory=100000000"]
    command += [f"--autoscaling-config={folder / 'autoscaler.json'}", f"--temp-dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder),
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_ADDRESS": here,
            MARK: mark,
        }.items():
            patch.setenv(name, value)
        with (folder / "start.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            _await_start(process, folder / "start.log")
            yield here
        finally:
            process.terminate()
            process.wait(60)
            reap(mark, folder, os.getpid())
            shutil.rmtree(folder, ignore_errors=True)


HEAD = "ray.head.default"
COMMANDS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
"""What an autoscaler's settings must name, and machines that are this one don't need."""


def _await_start(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def add_node(cluster: Any, cpus: int = 1, **options: Any) -> Any:
    """One more raylet."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=100 << 20, **options)
