"""All that is to be known of a model before it is run on rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchonnx.errors import DeviceError, ModelFileError
from batchonnx.lifecycle.flops import Flops, count_flops
from batchonnx.lifecycle.graph_outline import Outline, outline
from batchonnx.lifecycle.provenance import Step, steps_of
from batchonnx.runtime.device import Device
from batchonnx.runtime.graph import parse_model
from batchonnx.runtime.inspect import ModelCard, inspect_model
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.placement import Placement, read_placement
from batchonnx.runtime.session import open_session, session_options


@dataclass(frozen=True)
class Inspection:
    """A model's card, and what it takes to see.

    symbols: symbolic dimension -> the inputs and outputs that have it. flops: None where shapes can't be
    inferred.
    placement: by execution provider; empty where the model can't be loaded at all. steps: how it was made.
    """

    card: ModelCard
    symbols: Mapping[str, tuple[str, ...]]
    flops: Flops | None
    placement: tuple[Placement, ...]
    steps: tuple[Step, ...]
    outline: Outline

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the outline; keys are documented in docs/models.md."""
        told = asdict(self)
        del told["card"], told["outline"]
        return {**self.card.as_dict(), **told}


def look_into(path: str, sizes: Mapping[str, int] | None = None) -> Inspection:
    """Read a model, count what it computes, and load it for each execution provider that is there.

    sizes: symbolic dimension -> its size, for the count. Raises ModelFileError, DependencyError.
    """
    card = inspect_model(path)
    file = find_model(path)
    model = parse_model(file.local)
    assert model is not None  # else there was no card
    symbols: dict[str, tuple[str, ...]] = {}
    for spec in (*card.signature.inputs, *card.signature.outputs):
        for dim in dict.fromkeys(spec.shape or ()):
            if isinstance(dim, str):
                symbols[dim] = (*symbols.get(dim, ()), spec.name)
    return Inspection(
        card=card,
        symbols=symbols,
        flops=count_flops(model, sizes or {}),
        placement=tuple(_place_nodes(file)) if card.problem is None else (),
        steps=steps_of(card.signature),
        outline=outline(model),
    )


def _place_nodes(file: ModelFile) -> Iterator[Placement]:
    """Load the model for each provider that this ONNX Runtime was built with."""
    import onnxruntime

    for provider in onnxruntime.get_available_providers():
        device = Device(provider)
        options = session_options(1)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            yield read_placement(open_session(file, options, device), device)
        except (DeviceError, ModelFileError) as error:
            problem = error.problems[0]
            yield Placement(provider, None, ". ".join([problem.title, *problem.facts.values()]))
