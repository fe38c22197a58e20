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


def trees(path: Path, width: int = 3, count: int = 60) -> Path:
    """x float32[n, width] -> total float32[n, 1]: a sum of stumps, as boosting makes them, seeded."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(count), 3)
    values = rng.standard_normal((count, 3)).astype(np.float32)
    leaves = ids.reshape(-1, 3)[:, 1:].ravel()
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["total"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=ids,
        nodes_nodeids=np.tile([0, 1, 2], count),
        nodes_featureids=(rng.integers(0, width, (count, 1)) * [1, 0, 0]).ravel(),
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_values=(values * [1, 0, 0]).ravel(),
        nodes_truenodeids=np.tile([1, 0, 0], count),
        nodes_falsenodeids=np.tile([2, 0, 0], count),
        target_treeids=leaves,
        target_nodeids=np.tile([1, 2], count),
        target_ids=np.zeros(2 * count, np.int64),
        target_weights=values[:, 1:].ravel(),
    )
    graph = helper.make_graph(
        [node], "trees", [value("x", "float32", ["n", width])], [value("total", "float32", ["n", 1])]
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    return path


NETWORK_WIDTH = 64


def network(path: Path, spread: float = 1.0, outlier: float = 0.0) -> Path:
    """x float32[batch, 64] -> y float32[batch, 8]: three layers, a GELU in parts, constants to fold; seeded.

    spread: of the last layer's weights; far from 1, one scale for all of them tells little.
    outlier: weights of the second layer that are multiplied with 0, but set the scale of all others.
    """
    rng = np.random.default_rng(0)
    width = NETWORK_WIDTH
    weights = {f"w{i}": rng.standard_normal((width, width)).astype(np.float32) / 8 for i in range(2)}
    weights["w0"][:, 0], weights["w1"][0] = 0, outlier
    last = rng.standard_normal((width, 8)).astype(np.float32) / 8
    weights["w2"] = last * np.float32(spread) ** np.arange(8, dtype=np.float32)
    weights |= {name: np.zeros(width, np.float32) for name in ("c", "d", "bias")}
    weights |= {"root": np.array(2**0.5, np.float32), "one": np.array(1, np.float32)}
    weights["half"] = np.array(0.5, np.float32)
    steps = [
        ("Add", ["c", "d"], "e", "fold_me"),
        ("Add", ["x", "e"], "h", "shift"),
        ("MatMul", ["h", "w0"], "a", "first"),
        ("Add", ["a", "bias"], "b", "bias"),
        ("Div", ["b", "root"], "g1", "gelu_div"),
        ("Erf", ["g1"], "g2", "gelu_erf"),
        ("Add", ["g2", "one"], "g3", "gelu_add"),
        ("Mul", ["b", "g3"], "g4", "gelu_mul"),
        ("Mul", ["g4", "half"], "g", "gelu_half"),
        ("MatMul", ["g", "w1"], "t", "second"),
        ("Tanh", ["t"], "u", "tanh"),
        ("MatMul", ["u", "w2"], "y", "last"),
    ]
    nodes = [helper.make_node(kind, taken, [given], name=name) for kind, taken, given, name in steps]
    inputs, outputs = [value("x", "float32", ["batch", width])], [value("y", "float32", ["batch", 8])]
    return save(path, nodes, inputs, outputs, weights)
