"""What a worker takes of a cluster, how many of them fit, and what is missing if none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchonnx.errors import Problem
from batchonnx.job.spec import Engine, Resources, Span

Amounts = Mapping[str, float]
"""Resource, as Ray names it -> how much."""

ACCELERATOR = "accelerator_type:"
ACCELERATOR_SHARE = 0.001
"""What Ray itself asks of a node for the sake of its kind."""

HIDDEN = ("node:", "object_store_memory")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or what Ray takes for one. host: as messages name it."""

    id: str
    host: str
    machine: str
    amounts: Amounts


def read_nodes(nodes: Iterable[Mapping[str, Any]], leaving: Iterable[str] = ()) -> list[Node]:
    """The nodes that live, of `ray.nodes()`; leaving: ids of those that are being drained."""
    gone = set(leaving)
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            node["Resources"],
        )
        for node in nodes
        if node["Alive"] and node["NodeID"] not in gone
    ]


def wanted(resources: Resources) -> Amounts:
    """What one worker takes."""
    amounts: dict[str, float] = {"CPU": resources.num_cpus}
    if resources.num_gpus:
        amounts["GPU"] = resources.num_gpus
    if resources.memory is not None:
        amounts["memory"] = resources.memory
    if resources.accelerator_type is not None:
        amounts[ACCELERATOR + resources.accelerator_type] = ACCELERATOR_SHARE
    return amounts | resources.custom


def capacity(nodes: Sequence[Node], want: Amounts) -> int:
    """How many workers the nodes hold, with nothing else on them."""
    return sum(_on_one(node, want) for node in nodes)


def _on_one(node: Node, want: Amounts) -> int:
    return min(int(node.amounts.get(name, 0) / amount + 1e-9) for name, amount in want.items())


def span(engine: Engine, room: int) -> tuple[int, int]:
    """The fewest workers to begin with, and the most to have. room: as many fit."""
    if isinstance(engine.workers, Span):
        return engine.workers.min, engine.workers.max
    return 1, room if engine.workers == "auto" else engine.workers


def unplaceable(nodes: Sequence[Node], want: Amounts, least: int, waited_s: float) -> Problem:
    """Why there is no place: what one worker takes, against what the cluster has."""
    if not nodes:
        return Problem("the cluster has no node", {}, "start one: ray start --address=HEAD:PORT")
    largest = {name: max(node.amounts.get(name, 0) for node in nodes) for name in want}
    missing = [name for name, amount in want.items() if largest[name] < amount]
    facts = {"wanted": _told(want) + (f", {least} times" if least > 1 else "")}
    shown = sorted({n for node in nodes for n in node.amounts if not n.startswith(HIDDEN)})
    facts["cluster"] = _told({n: sum(node.amounts.get(n, 0) for node in nodes) for n in shown})
    facts["cluster"] += f", on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    if missing:
        first = missing[0]
        facts["largest"] = f"{_amount(first, largest[first])} of {first} on one node"
        title = f"no node has the {first} that a worker takes"
        fix = "ask for less in engine.resources, or add a node that has it"
        return Problem(title, facts, f"{fix}; engine.wait_s gives an autoscaler time")
    if (room := capacity(nodes, want)) < least:
        facts["room"] = f"for {room}"
        title = f"the cluster has no room for {least} worker{'s' if least > 1 else ''}"
        return Problem(title, facts, "ask for less in engine.resources, or lower engine.workers")
    facts["waited"] = f"{waited_s:.0f} s"
    fix = "end what uses the cluster (ray list actors), or wait for longer: engine.wait_s"
    return Problem("the cluster is busy: no worker was given a place", facts, fix)


def machines(nodes: Sequence[Node]) -> list[str]:
    """The machines, each once, however many nodes are on it."""
    return sorted({node.machine for node in nodes})


def _told(amounts: Amounts) -> str:
    return ", ".join(f"{name} {_amount(name, amount)}" for name, amount in amounts.items()) or "nothing"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if name == "memory" else f"{amount:g}"
