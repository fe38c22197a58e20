"""The nodes of a Ray cluster, each looked at by itself, and what they haven't in common."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from batchonnx.doctor.examine import examine
from batchonnx.doctor.symptom import Level, Symptom, Symptoms
from batchonnx.engines.ray.connect import connected
from batchonnx.errors import BatchonnxError

NODE_S = 180
"""How long a node may take to tell of itself: it starts a worker, and imports."""


def check_ray() -> Symptoms:
    """Whether a cluster could be used from here."""
    try:
        found = version("ray")
    except PackageNotFoundError:
        yield Symptom("ray", "good", "not installed: jobs run in their own process")
        return
    yield Symptom("ray", "good", f"ray {found}", alike=f"ray {found}")


def examine_cluster(address: str, places: Sequence[str] = ()) -> dict[str, list[Symptom]]:
    """Node -> what it tells of itself and of places; `differing` has marked what it has otherwise than most.

    address: a head's `host:port`, or `auto`. Raises DependencyError, ClusterError.
    """
    with connected(address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(num_cpus=0, max_retries=0)(_examine_here)
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                name = f"{node['NodeManagerAddress']} {node['NodeID'][:6]}"
                asked[name] = look.options(scheduling_strategy=where).remote(tuple(places))
        found = {}
        for name, answer in asked.items():
            try:
                found[name] = [Symptom(**one) for one in ray.get(answer, timeout=NODE_S)]
            except (ray.exceptions.RayError, BatchonnxError) as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                fix = "install the same batchonnx on every node, or name it in the job's dependencies"
                found[name] = [Symptom("node", "bad", lines[-1][:300], fix)]
    return differing(found)


def differing(nodes: Mapping[str, Sequence[Symptom]]) -> dict[str, list[Symptom]]:
    """What a node has otherwise than most nodes, as a hint at least."""
    usual: dict[str, str] = {}
    for check in {symptom.check for symptoms in nodes.values() for symptom in symptoms}:
        alike = Counter(one.alike for found in nodes.values() for one in found if one.check == check)
        usual[check] = max(sorted(alike), key=lambda told: alike[told])

    def marked(symptom: Symptom) -> Symptom:
        wanted = usual[symptom.check]
        if symptom.alike == wanted or not (symptom.alike or wanted):
            return symptom
        found = f"{symptom.found} (most nodes: {wanted})" if wanted else symptom.found
        level: Level = "hint" if symptom.level == "good" else symptom.level
        fix = symptom.fix or "have the same on every node: shards wait for the slowest, and bytes may differ"
        return replace(symptom, level=level, found=found, fix=fix)

    return {name: [marked(symptom) for symptom in symptoms] for name, symptoms in nodes.items()}


def _examine_here(places: tuple[str, ...]) -> list[dict[str, Any]]:
    """Runs on a node."""
    host = Symptom("host", "good", platform.node())
    return [asdict(symptom) for symptom in (host, *check_ray(), *examine(places))]
