"""How many workers a cluster holds, and what is missing if it holds none."""

from __future__ import annotations

from batchonnx.engines.ray.placement import (
    capacity,
    machines,
    read_nodes,
    span,
    unplaceable,
    wanted,
)
from batchonnx.job.spec import Engine, Resources, Span


def node(name: str, host: str = "h", *, alive: bool = True, **amounts: float) -> dict:
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerHostname": host,
        "NodeManagerAddress": "10.0.0.1",
        "Resources": amounts,
    }


def test_dead_and_leaving_nodes_hold_nobody() -> None:
    nodes = read_nodes([node("a", CPU=4), node("b", CPU=4), node("c", CPU=4, alive=False)], ["b"])
    assert [one.id for one in nodes] == ["a"]
    assert capacity(nodes, wanted(Resources())) == 4


def test_a_worker_fits_on_one_node_or_not_at_all() -> None:
    nodes = read_nodes([node("a", CPU=3), node("b", CPU=3)])
    assert capacity(nodes, wanted(Resources(num_cpus=2))) == 2
    assert capacity(nodes, wanted(Resources(num_cpus=4))) == 0


def test_shares_of_a_gpu_and_its_kind_are_counted() -> None:
    nodes = read_nodes([node("a", **{"CPU": 8, "GPU": 1, "accelerator_type:A10G": 1})])
    half = wanted(Resources(num_gpus=0.5, accelerator_type="A10G"))
    assert capacity(nodes, half) == 2
    assert capacity(nodes, wanted(Resources(num_gpus=0.5, accelerator_type="H100"))) == 0


def test_what_is_missing_is_told_against_the_largest_node() -> None:
    nodes = read_nodes([node("a", CPU=2), node("b", CPU=3)])
    problem = unplaceable(nodes, wanted(Resources(num_cpus=4)), 1, 10.0)
    assert problem.title == "no node has the CPU that a worker takes"
    assert problem.facts["largest"] == "3 of CPU on one node"
    assert problem.facts["cluster"] == "CPU 5, on 2 nodes"


def test_too_little_room_and_a_busy_cluster_are_told_apart() -> None:
    nodes = read_nodes([node("a", CPU=2)])
    assert unplaceable(nodes, {"CPU": 1}, 3, 10.0).title == "the cluster has no room for 3 workers"
    assert unplaceable(nodes, {"CPU": 1}, 1, 10.0).facts["waited"] == "10 s"
    assert unplaceable([], {"CPU": 1}, 1, 10.0).title == "the cluster has no node"


def test_workers_are_as_many_as_was_asked_for() -> None:
    assert span(Engine(name="ray"), 7) == (1, 7)
    assert span(Engine(name="ray", workers=3), 7) == (1, 3)
    assert span(Engine(name="ray", workers=Span(min=2, max=5)), 1) == (2, 5)


def test_several_raylets_on_one_machine_are_one_machine() -> None:
    assert len(machines(read_nodes([node("a"), node("b")]))) == 1
    assert len(machines(read_nodes([node("a"), node("b", host="other")]))) == 2
