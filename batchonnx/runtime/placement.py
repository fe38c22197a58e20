"""Which nodes of a model each execution provider of this ONNX Runtime would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from batchonnx.errors import ModelFileError
from batchonnx.runtime.device import Device
from batchonnx.runtime.model_file import ModelFile
from batchonnx.runtime.session import open_session, session_options
from batchonnx.runtime.wheels import require_onnxruntime


@dataclass(frozen=True)
class Placement:
    """What one provider takes.

    nodes: operator -> how many it would run, as optimized for it; the CPU runs the others. None where that
    isn't known. problem: why it can't be used here, or why it isn't known; None if it is.
    """

    provider: str
    nodes: Mapping[str, int] | None
    problem: str | None = None


def place_nodes(file: ModelFile) -> Iterator[Placement]:
    """Load the model for each provider that this ONNX Runtime was built with.

    Raises DependencyError if there is none, or two.
    """
    require_onnxruntime()
    import onnxruntime

    for provider in onnxruntime.get_available_providers():
        yield _place(file, provider)


def _place(file: ModelFile, provider: str) -> Placement:
    options = session_options(1)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = open_session(file, options, Device(provider))
    except ModelFileError as error:
        problem = error.problems[0]
        return Placement(provider, None, ". ".join([problem.title, *problem.facts.values()]))
    # A provider that can't be loaded is dropped without an exception.
    if session.get_providers()[0] != provider:
        return Placement(provider, None, "its libraries or its device aren't there")
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placement(provider, None, "only ONNX Runtime 1.31 or newer tells")
    taken: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        if subgraph.ep_name == provider:
            taken.update(node.op_type for node in subgraph.get_nodes())
    return Placement(provider, dict(taken.most_common()))
