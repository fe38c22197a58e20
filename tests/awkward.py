"""Models that go wrong in one known way each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import models


def mean_over_batch(path: Path) -> Path:
    """x float32[n, 3] less the mean of all rows: every row depends on its neighbours."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return models.save(
        path, nodes, [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    )


def pooled(path: Path, *, heeds_mask: bool, has_mask: bool = True) -> Path:
    """x float32[n, length, 4], attention_mask int64[n, length] -> the mean over length, masked or not."""
    inputs = [models.value("x", "float32", ["n", "length", 4])]
    inputs += [models.value("attention_mask", "int64", ["n", "length"])] if has_mask else []
    axes = {"axes": np.array([2], np.int64), "one": np.array([1], np.int64)}
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]
    if has_mask:
        nodes = [
            helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["m", "axes"], ["mask"]),
            helper.make_node("ReduceSum", ["mask", "one"], ["length_of"], keepdims=0),
            helper.make_node("Mul", ["x", "mask"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "one"], ["sum"], keepdims=0),
            helper.make_node("Div", ["sum", "length_of"], ["y"])
            if heeds_mask
            else helper.make_node("ReduceMean", ["masked"], ["y"], axes=[1], keepdims=0),
        ]
    return models.save(
        path, nodes, inputs, [models.value("y", "float32", ["n", 4])], axes if has_mask else {}
    )


def one_row_only(path: Path) -> Path:
    """Declared for any number of rows; a constant in it says one."""
    shape = {"shape": np.array([1, 3], np.int64)}
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    return models.save(path, [node], *values, shape)


def size_bomb(path: Path) -> Path:
    """A constant that would take 4 TB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    shape = {"shape": np.array([1 << 40], np.int64)}
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    return models.save(path, nodes, *values, shape)


def growing_bomb(path: Path, times: int = 30) -> Path:
    """Doubles x so often that no memory holds it; no shape in the file says so."""
    nodes = [
        helper.make_node("Identity", ["x"], ["t0"]),
        *(
            helper.make_node("Concat", [f"t{step}", f"t{step}"], [f"t{step + 1}"], axis=1)
            for step in range(times)
        ),
        helper.make_node("ReduceSum", [f"t{times}", "axes"], ["y"], keepdims=0),
    ]
    values = [models.value("x", "float32", ["n", "width"])], [models.value("y", "float32", ["n"])]
    return models.save(path, nodes, *values, {"axes": np.array([1], np.int64)})


def endless(path: Path) -> Path:
    """A loop that goes on for as many turns as an integer can count."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    node = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    weights = {"turns": np.array(1 << 62, np.int64), "yes": np.array(True)}
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    return models.save(path, [node], *values, weights)


def with_custom_operator(path: Path) -> Path:
    """An operator that only somebody's library has."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    graph = helper.make_graph([node], "g", *values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def dynamically_quantized(path: Path, *, is_broken: bool = False) -> Path:
    """x float32[n, 8] -> scores float32[n, 4], its activations quantized with one scale for the whole batch.

    is_broken: the weights' scale is ten times what it should be for one class.
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 4)).astype(np.float32)
    scale = np.abs(weights).max(axis=0) / 127
    stored = np.round(weights / scale).astype(np.int8)
    scale = scale * np.array([10.0 if is_broken else 1.0, 1, 1, 1])
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["x8", "x_scale", "x_zero"]),
        helper.make_node("MatMulInteger", ["x8", "w8", "x_zero"], ["products"]),
        helper.make_node("Cast", ["products"], ["sums"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["sums", "scale"], ["scores"]),
    ]
    held = {"w8": stored, "w_scale": scale.astype(np.float32)}
    inputs, outputs = [models.value("x", "float32", ["n", 8])], [models.value("scores", "float32", ["n", 4])]
    return models.save(path, nodes, inputs, outputs, held)


def unquantized(path: Path) -> Path:
    """What `dynamically_quantized` was made of."""
    weights = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    inputs, outputs = [models.value("x", "float32", ["n", 8])], [models.value("scores", "float32", ["n", 4])]
    return models.save(
        path, [helper.make_node("MatMul", ["x", "w"], ["scores"])], inputs, outputs, {"w": weights}
    )
