"""Small real ONNX models for tests, made with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]

_ELEMENT = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
} | {f"{u}int{w}": getattr(TensorProto, f"{u.upper()}INT{w}") for u in ("", "u") for w in (8, 16, 32, 64)}


def value(name: str, dtype: str, shape: Dims | None) -> onnx.ValueInfoProto:
    """A typed input or output; shape None: unknown rank."""
    return helper.make_tensor_value_info(name, _ELEMENT[dtype], shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model of these nodes, opset 17."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def identity(path: Path, dtype: str = "float32", shape: Dims = ("n", 3)) -> Path:
    """x -> y, the same."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [value("x", dtype, shape)], [value("y", dtype, shape)])


def linear(path: Path, width: int = 3, classes: int = 2) -> Path:
    """x float32[n, width] -> scores float32[n, classes], seeded weights."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((width, classes)).astype(np.float32),
        "b": rng.standard_normal(classes).astype(np.float32),
    }
    node = helper.make_node("Gemm", ["x", "w", "b"], ["scores"])
    inputs, outputs = [value("x", "float32", ["n", width])], [value("scores", "float32", ["n", classes])]
    return save(path, [node], inputs, outputs, weights)


def row_sum(path: Path, width: int = 3) -> Path:
    """x float32[n, width] -> total float32[n]."""
    node = helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    axes = {"axes": np.array([1], np.int64)}
    return save(path, [node], [value("x", "float32", ["n", width])], [value("total", "float32", ["n"])], axes)


def batch_mean(path: Path, width: int = 3) -> Path:
    """x float32[n, width] -> mean float32[1, width]: one answer for a whole batch."""
    node = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    shape = [value("mean", "float32", [1, width])]
    return save(path, [node], [value("x", "float32", ["n", width])], shape)
