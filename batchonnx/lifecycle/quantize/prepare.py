"""A model as quantizers want it: constants folded, shapes inferred, every node with a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.ort_graph import BASIC, write_graph
from batchonnx.lifecycle.tools import working_on
from batchonnx.lifecycle.whole_model import load_whole, put_weights, save_whole, take_weights
from batchonnx.runtime.model_file import ModelFile, find_model

if TYPE_CHECKING:
    import onnx

_LARGE = 2**30
"""ONNX Runtime's tools write a model more than once, and as one file unless told otherwise."""

_RENAMES = "MatMulAddFusion"
"""The optimizer that gives nodes other names, and makes a Gemm of what only static quantizers know as one."""


@dataclass(frozen=True)
class Prepared:
    """path: the prepared model. operators: node -> its type, as it was before. layers: nodes with weights, in
    their order. is_large: too large for one file."""

    path: Path
    operators: dict[str, str]
    layers: tuple[str, ...]
    is_large: bool


def prepare(file: ModelFile, folder: Path, *, keeps_gemm: bool) -> Prepared:
    """Write the prepared model into a folder.

    keeps_gemm: whether the quantizer knows the operator Gemm; else it becomes MatMul and Add, the former
    under its name.
    Raises ModelFileError.
    """
    whole, path = folder / "whole.onnx", folder / "prepared.onnx"
    named = load_whole(file)
    is_large = file.bytes > _LARGE
    _name_nodes(named)
    save_whole(named, whole)
    del named
    with working_on(file, "preparing for quantization", "simplify it first: batchonnx model optimize"):
        write_graph(whole, path, BASIC, [_RENAMES])
        model = load_whole(find_model(str(path)))
        _name_nodes(model)
        operators = {node.name: node.op_type for node in model.graph.node}
        if not keeps_gemm:
            model = _without_gemm(model)
        save_whole(_with_shapes(model), path, is_external=is_large)
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    layers = tuple(node.name for node in model.graph.node if weights.intersection(node.input))
    return Prepared(path, operators, layers, is_large)


def excluded_nodes(prepared: Prepared, names: Sequence[str], file: ModelFile) -> frozenset[str]:
    """Nodes by their own names, or by their operators'. Raises ContractError for one that isn't there."""
    operators = prepared.operators
    for name in names:
        if name not in operators and name not in operators.values():
            near = get_close_matches(name, [*operators, *operators.values()], 1)
            facts = {**file.facts, "operators": ", ".join(sorted(set(operators.values())))}
            fix = f"did you mean {near[0]}?" if near else "name one of its operators, or a node"
            raise ContractError(Problem(f'the model has no operator or node "{name}"', facts, fix))
    return frozenset(node for node, kind in operators.items() if node in names or kind in names)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Nodes are left out, and told, by their names."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def _without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.onnx_model import ONNXModel

    gemms = {node.name for node in model.graph.node if node.op_type == "Gemm"}
    if not gemms:
        return model
    split = ONNXModel(model)
    split.replace_gemm_with_matmul()
    split.clean_initializers()
    for node in split.model.graph.node:
        if node.op_type == "MatMul" and node.name.removesuffix("_MatMul") in gemms:
            node.name = node.name.removesuffix("_MatMul")
    result: onnx.ModelProto = split.model
    return result


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    weights = take_weights(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    put_weights(inferred, weights)
    return inferred
