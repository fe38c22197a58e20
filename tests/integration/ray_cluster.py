"""A real Ray cluster of several raylets on this machine, with nothing left of it afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchonnx.engines.ray.reaper import MARK, reap


@contextmanager
def ray_cluster(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`, which RAY_ADDRESS tells of until the block ends.

    Whatever becomes of it, its processes are ended and its folder is removed.
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
            cluster = Cluster(initialize_head=True, head_node_args=options)
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


def add_node(cluster: Any, cpus: int = 1, **options: Any) -> Any:
    """One more raylet."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=100 << 20, **options)
