"""What the file says of the graph, read with `onnx`: imported only where ONNX Runtime can't tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from batchonnx.runtime.signature import Dim, TensorSpec

if TYPE_CHECKING:
    import onnx

_DTYPES = {"float": "float32", "double": "float64"}


def parse_model(path: Path) -> onnx.ModelProto | None:
    """The model without its external weights; None where the file isn't a whole protobuf with a graph."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError:
        return None
    return model if model.HasField("graph") else None


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and those inside nodes (If, Loop, Scan), also the nodes of functions."""
    yield model.graph
    for function in model.functions:
        yield from _inner(function.node)
    yield from _inner(model.graph.node)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs and functions included."""
    for function in model.functions:
        yield from function.node
    for graph in all_graphs(model):
        yield from graph.node


def weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every initializer; of a sparse one the values that are stored."""
    for graph in all_graphs(model):
        yield from graph.initializer
        yield from (sparse.values for sparse in graph.sparse_initializer)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every initializer, and every tensor that a node holds as an attribute."""
    yield from weights(model)
    for attribute in chain.from_iterable(node.attribute for node in all_nodes(model)):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def declared_inputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Inputs as written in the file, without those that are initializers."""
    known = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in known)


def declared_outputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Outputs as written in the file."""
    return tuple(_spec(value) for value in model.graph.output)


def dtype_name(onnx_name: str) -> str:
    """numpy's name for ONNX's own: "float" is float32, "double" float64; the others are the same."""
    return _DTYPES.get(onnx_name, onnx_name)


def element_name(data_type: int) -> str:
    """ONNX's name of an element type: 1 -> "float"; "type99" for one that it doesn't know."""
    import onnx

    known = data_type in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(data_type).lower() if known else f"type{data_type}"


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield graph
                yield from _inner(graph.node)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        tensor = value.type.tensor_type
        shape = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
        return TensorSpec(value.name, dtype_name(element_name(tensor.elem_type)), shape)
    inner = value.type.sequence_type.elem_type
    if kind == "sequence_type" and inner.WhichOneof("value") == "map_type":
        held = dtype_name(element_name(inner.map_type.value_type.tensor_type.elem_type))
        return TensorSpec(value.name, held, None, "maps", element_name(inner.map_type.key_type))
    return TensorSpec(value.name, (kind or "unknown").removesuffix("_type"), None, "other")


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return dim.dim_param or None
