"""What a model file says of itself, whether or not it can be run here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from batchonnx.errors import ModelFileError
from batchonnx.runtime.diagnose import diagnose, external_files
from batchonnx.runtime.session import open_model
from batchonnx.runtime.signature import ModelSignature
from batchonnx.storage.paths import local_copy

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class ModelCard:
    """A model in figures.

    signature: as ONNX Runtime sees it. opsets: domain -> version ("" is ONNX's own).
    operators: type -> number of nodes, subgraphs included. parameters: values in initializers.
    weights: element type -> bytes. external: files that hold weights, beside the model.
    """

    signature: ModelSignature
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    operators: Mapping[str, int]
    parameters: int
    weights: Mapping[str, int]
    external: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/cli.md."""
        card = asdict(self)
        signature = card.pop("signature")
        return {**signature, **card}


def inspect_model(path: str) -> ModelCard:
    """Read a model's graph, without its external weights.

    Raises ModelFileError naming what is wrong if it is no model that ONNX Runtime loads.
    """
    import onnx
    from google.protobuf.message import DecodeError

    local = local_copy(path, ModelFileError, "the model")
    signature = open_model(str(local.absolute()) if "://" not in path else path).signature
    content = local.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise diagnose(path, local, content, str(error)) from error
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    parameters = 0
    for graph in _graphs(model.graph):
        operators.update(
            f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node
        )
        for tensor in graph.initializer:
            count = prod(tensor.dims)
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            parameters += count
            weights[kind] += count * _width(tensor.data_type)
    return ModelCard(
        signature=signature,
        ir_version=model.ir_version,
        opsets={opset.domain: opset.version for opset in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        operators=dict(operators.most_common()),
        parameters=parameters,
        weights=dict(weights.most_common()),
        external=external_files(content),
    )


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and those inside its nodes (If, Loop, Scan)."""
    graphs = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                graphs += _graphs(attribute.g)
            for inner in attribute.graphs:
                graphs += _graphs(inner)
    return graphs


def _width(data_type: int) -> int:
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
