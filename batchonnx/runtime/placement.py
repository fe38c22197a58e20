"""Which nodes of a model an execution provider runs, and which it leaves to the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchonnx.errors import DeviceError, Problem
from batchonnx.runtime.device import Device

_CPU = "CPUExecutionProvider"

_HEAVY = (
    "Conv",  # and all that have it in their names, in whatever form a provider fused them
    "MatMul",
    "Gemm",
    "Attention",
    "Einsum",
    "LSTM",
    "GRU",
    "RNN",
    "TreeEnsemble",
    "SVM",
)
"""Operators whose work grows with more than the numbers they take. The few nodes that compute shapes are left
to the CPU on purpose."""


@dataclass(frozen=True)
class Placement:
    """What one provider takes.

    nodes: operator -> how many it runs, as optimized for it; left: those that the CPU runs beside it. None
    where that isn't known. problem: why it can't be used here, or why it isn't known; None if it is.
    """

    provider: str
    nodes: Mapping[str, int] | None
    problem: str | None = None
    left: Mapping[str, int] = field(default_factory=dict)

    @property
    def heavy(self) -> dict[str, int]:
        """Of those left to the CPU, the ones that take long there."""
        return {name: count for name, count in self.left.items() if any(part in name for part in _HEAVY)}


def read_placement(session: Any, device: Device) -> Placement:
    """As ONNX Runtime has placed the nodes of a session that was to record it."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placement(device.provider, None, "only ONNX Runtime 1.24 or newer tells")
    taken: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        is_left = subgraph.ep_name == _CPU and not device.is_cpu
        (left if is_left else taken).update(node.op_type for node in subgraph.get_nodes())
    return Placement(device.provider, dict(taken.most_common()), left=dict(left.most_common()))


def all_placements(placements: Sequence[Placement]) -> Placement | None:
    """Of several models as one; None if there are none."""
    if not placements:
        return None
    taken: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for placement in placements:
        if placement.nodes is None:
            return placement
        taken.update(placement.nodes)
        left.update(placement.left)
    return Placement(placements[0].provider, dict(taken), left=dict(left))


def told_of(placement: Placement, fallback: str) -> str | None:
    """What the user should know of it. fallback: as in the job: warn, allow or forbid.

    Raises DeviceError if heavy operators are left to the CPU and that is forbidden, or if nobody knows.
    """
    provider = placement.provider.rpartition("/")[2]  # of a plugin, its library's name
    facts = {"job": "engine.fallback: forbid"}
    if placement.nodes is None:
        if fallback == "forbid":
            fix = "upgrade ONNX Runtime, or leave engine.fallback out"
            raise DeviceError(Problem(f"{provider} doesn't tell which nodes it runs", facts, fix))
        return None
    heavy = ", ".join(f"{count} {name}" for name, count in placement.heavy.items())
    if not heavy or fallback == "allow":
        return None
    runs = sum(placement.nodes.values())
    told = f"{provider} runs {runs} of {runs + sum(placement.left.values())} nodes, and leaves to the CPU"
    if fallback == "forbid":
        facts["found"] = f"{told} {heavy}, and {len(placement.left) - len(placement.heavy)} other kinds"
        fix = "export the model with operators and types that the provider has, or leave engine.fallback out"
        raise DeviceError(Problem(f"{provider} leaves heavy operators to the CPU", facts, fix))
    return f"{told} {heavy}: there they may take most of the time"
