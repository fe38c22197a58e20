"""Three nodes, one of them other than its neighbours: the command says which, and in what."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from batchonnx.cli import main
from tests.integration.ray_cluster import add_node, ray_cluster


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="a node gets fewer cores"
)
def test_the_node_that_differs_is_marked() -> None:
    pytest.importorskip("ray")
    allowed = os.sched_getaffinity(0)
    with ray_cluster(2) as cluster:
        os.sched_setaffinity(0, {min(allowed)})
        try:
            add_node(cluster)
        finally:
            os.sched_setaffinity(0, allowed)
        done = CliRunner().invoke(main, ["doctor", "--address", cluster.address, "--json"])
    assert done.exit_code == 0, done.output
    nodes = json.loads(done.stdout)
    assert len(nodes) == 3
    cores = [next(one for one in found if one["check"] == "cores") for found in nodes.values()]
    assert sorted(one["level"] for one in cores) == ["good", "good", "hint"]
    assert [one["alike"] for one in cores if one["level"] == "hint"] == ["1"]
    others = [one for found in nodes.values() for one in found if one["check"] != "cores"]
    assert {one["level"] for one in others} == {"good"}, [one for one in others if one["level"] != "good"]
