"""Open dimensions of a model, given a size for good."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.whole_model import put_weights, take_weights
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx

Sizes = Mapping[str, tuple[int, ...]]
"""Symbolic dimension -> one size; input -> the sizes of all its dimensions."""


def fix_shapes(model: onnx.ModelProto, sizes: Sizes, file: ModelFile) -> None:
    """Give open dimensions their sizes, all over the graph; outputs follow where they can be inferred.

    file: names the model in errors. Raises ContractError for a name that isn't there, or a size that doesn't
    fit.
    """
    from onnxruntime.tools import onnx_model_utils

    inputs = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    symbols = {dim.dim_param for dims in inputs.values() for dim in dims if dim.dim_param}
    for name, given in sizes.items():
        if name in symbols and len(given) == 1:
            onnx_model_utils.make_dim_param_fixed(model.graph, name, given[0])
        elif name in inputs:
            dims = inputs[name]
            if len(dims) != len(given) or any(
                dim.dim_value and dim.dim_value != size for dim, size in zip(dims, given, strict=True)
            ):
                shape = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
                title = f'the input "{name}" can\'t have the shape {list(given)}'
                facts = {**file.facts, "declared": f"[{shape}]"}
                raise ContractError(
                    Problem(title, facts, "give a size for each dimension, those fixed as is")
                )
            onnx_model_utils.make_input_shape_fixed(model.graph, name, list(given))
        else:
            raise _unknown(name, sorted(symbols), sorted(inputs), file)
    _fix_outputs(model)


def _fix_outputs(model: onnx.ModelProto) -> None:
    import onnx

    weights = take_weights(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    put_weights(model, weights)
    for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(known)


def _unknown(name: str, symbols: list[str], inputs: list[str], file: ModelFile) -> ContractError:
    near = get_close_matches(name, [*symbols, *inputs], 1)
    facts = {
        **file.facts,
        "open dimensions": ", ".join(symbols) or "none with a name",
        "inputs": ", ".join(inputs),
    }
    fix = f"did you mean {near[0]}?" if near else "name a dimension: NAME=N, or an input: INPUT=AxBxC"
    return ContractError(Problem(f'the model has no open dimension or input "{name}"', facts, fix))
