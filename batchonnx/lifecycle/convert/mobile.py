"""How much of a model the accelerated providers of phones would take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchonnx.lifecycle.ort_graph import BASIC, write_graph
from batchonnx.lifecycle.tools import working_on
from batchonnx.lifecycle.whole_model import load_whole
from batchonnx.runtime.model_file import ModelFile, find_model

if TYPE_CHECKING:
    import onnx

XNNPACK = {
    "ai.onnx:AveragePool": "2D only",
    "ai.onnx:Conv": "2D only, with constant weights and bias",
    "ai.onnx:ConvTranspose": "2D only, with constant weights and bias",
    "ai.onnx:Gemm": "of matrices, with constant weights",
    "ai.onnx:MatMul": "of matrices, with constant weights",
    "ai.onnx:MaxPool": "2D only",
    "ai.onnx:QLinearConv": "2D only, with constant weights and bias",
    "ai.onnx:Resize": "bilinear, of four dimensions",
    "ai.onnx:Softmax": "along the last axis",
    "com.microsoft:QLinearAveragePool": "2D only",
    "com.microsoft:QLinearConvTranspose": "with constant scales and zero points",
    "com.microsoft:QLinearSoftmax": "along the last axis",
}
"""From ONNX Runtime's documentation of the provider; the other providers' lists come with its wheel."""

_LISTS = {
    "NNAPI": "nnapi_supported_ops.md",
    "CoreML (NeuralNetwork)": "coreml_supported_neuralnetwork_ops.md",
    "CoreML (MLProgram)": "coreml_supported_mlprogram_ops.md",
}


@dataclass(frozen=True)
class Usability:
    """What one provider would take, judged by operators' types and shapes alone.

    nodes: of the model, as optimized for any machine. taken, parts: how many of them, in how many pieces, as
    declared. taken_fixed, parts_fixed: the same if all shapes were fixed. verdict: "yes", "maybe" or "no", as
    ONNX Runtime's own checker judges the better of the two. left: operators that it hasn't: the CPU's.
    caveats: operator -> what it takes of it, unchecked.
    """

    provider: str
    nodes: int
    taken: int
    parts: int
    taken_fixed: int
    parts_fixed: int
    verdict: str
    left: tuple[str, ...]
    caveats: Mapping[str, str]


def mobile_usability(path: str) -> list[Usability]:
    """NNAPI (Android), CoreML (Apple) and XNNPACK (CPUs of either), none of which has to be here.

    Raises ModelFileError.
    """
    file = find_model(path)
    load_whole(file)  # its errors are better than the tools'
    with working_on(file, "ONNX Runtime's usability checker", "convert it without --mobile"):
        model = _with_shapes(file)
        return list(_judged(model))


def _judged(model: onnx.ModelProto) -> Iterator[Usability]:
    from onnxruntime.tools import mobile_helpers

    folder = Path(next(iter(mobile_helpers.__path__)))
    for provider, name in _LISTS.items():
        listed = _read_list(folder / name)
        yield _usability(model, provider, listed, 5 if "CoreML" in provider else 999)
    yield _usability(model, "XNNPACK", XNNPACK, 999)


def _usability(model: onnx.ModelProto, provider: str, listed: Mapping[str, str], max_rank: int) -> Usability:
    from onnxruntime.tools.mobile_helpers.usability_checker import check_partitioning

    known = _Known(listed)
    found: list[Any] = [
        check_partitioning(model.graph, known, needs_fixed, max_rank) for needs_fixed in (True, False)
    ]
    as_is, fixed = found
    verdict = max(one.suitability() for one in found)
    return Usability(
        provider=provider,
        nodes=as_is.num_nodes,
        taken=as_is.num_supported_nodes,
        parts=as_is.num_partitions,
        taken_fixed=fixed.num_supported_nodes,
        parts_fixed=fixed.num_partitions,
        verdict=verdict.name.lower(),
        left=tuple(sorted(as_is.unsupported_ops)),
        caveats={name: listed[name] for name in sorted(known.seen) if listed[name]},
    )


class _Known:
    """The operators of a provider, as the checker asks for them."""

    def __init__(self, listed: Mapping[str, str]) -> None:
        self._listed = listed
        self.seen: set[str] = set()

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        name = f"{node.domain or 'ai.onnx'}:{node.op_type}"
        if name in self._listed:
            self.seen.add(name)
        return name in self._listed


def _read_list(path: Path) -> dict[str, str]:
    """Operator -> caveat, from a table of two columns."""
    rows = [line.split("|") for line in path.read_text().splitlines() if line.count("|") == 3]
    return {name.strip(): told.replace("<br/>", " ").strip() for _, name, told, _ in rows if ":" in name}


def _with_shapes(file: ModelFile) -> onnx.ModelProto:
    """The model as optimized for any machine, all shapes inferred."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_graph(file.local, path, BASIC)
        return onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
