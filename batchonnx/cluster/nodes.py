"""The machines of a cluster: are they this one, and do they have what a job asks for."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchonnx.cluster.connect import Cluster
from batchonnx.errors import ClusterError, Problem

REGISTER_S, AGAIN_S = 20.0, 0.5
"""How long a head that has just been started may take to know of its own node."""


@dataclass(frozen=True)
class Node:
    """A node that lives. resources: name -> how much it has in all, as Ray counts."""

    ip: str
    resources: Mapping[str, float]


def live_nodes(cluster: Cluster) -> list[Node]:
    """The nodes of a cluster. Raises ClusterError, also if for REGISTER_S seconds there is none."""
    begin = time.monotonic()
    while not (found := _ask(cluster)):
        if time.monotonic() - begin > REGISTER_S:
            fix = "see whether the head's raylet runs, then run the same command again"
            raise ClusterError(Problem("the cluster has no node that lives", {"cluster": cluster.name}, fix))
        time.sleep(AGAIN_S)
    return found


def is_here(nodes: Sequence[Node]) -> bool:
    """Whether this machine is the whole cluster. A tunnel to one that is elsewhere doesn't look so."""
    return bool(nodes) and all(_is_own(ip) for ip in {node.ip for node in nodes})


def missing(nodes: Sequence[Node], wanted: Mapping[str, float]) -> dict[str, float]:
    """Resource -> the most that any node has, for those that no node has enough of."""
    most = {name: max((node.resources.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    return {name: has for name, has in most.items() if has < wanted[name]}


def _is_own(ip: str) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((ip, 0))
    except OSError:
        return False
    return True


def _ask(cluster: Cluster) -> list[Node]:
    answer = cluster.get("/api/v0/nodes?detail=true&limit=10000")
    rows = answer["data"]["result"]["result"]
    return [
        Node(str(row["node_ip"]), {name: float(has) for name, has in (row["resources_total"] or {}).items()})
        for row in rows
        if row["state"] == "ALIVE"
    ]
