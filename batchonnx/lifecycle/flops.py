"""How much arithmetic one row takes: counted from the graph, not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import shape_inference

from batchonnx.lifecycle.random_feed import UNTOLD_SIZE

Shape = Sequence[int]


@dataclass(frozen=True)
class Flops:
    """Operations on numbers for one row; a multiplication and an addition are two.

    per_row: of all nodes that could be counted. by_operator: the same by type, the most first.
    sizes: what symbolic dimensions were taken for. uncounted: operator -> nodes whose shapes nobody knows
    before they run, or that hold a graph of their own.
    """

    per_row: int
    by_operator: Mapping[str, int]
    sizes: Mapping[str, int]
    uncounted: Mapping[str, int]


def count_flops(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Flops | None:
    """sizes: symbolic dimension -> its size; others are of 8, the batch is of 1. None if shapes can't be
    inferred.

    model: is left as it is.
    """
    fixed, taken, rows = _with_sizes(model, sizes)
    try:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return None
    shapes = _shapes(inferred)
    counted: Counter[str] = Counter()
    uncounted: Counter[str] = Counter()
    for node in inferred.graph.node:
        amount = _count(node, shapes)
        if amount is None:
            uncounted[node.op_type] += 1
        elif amount:
            counted[node.op_type] += amount
    by_operator = {name: amount // rows for name, amount in counted.most_common()}
    return Flops(sum(counted.values()) // rows, by_operator, taken, dict(uncounted.most_common()))


def _with_sizes(
    model: onnx.ModelProto, sizes: Mapping[str, int]
) -> tuple[onnx.ModelProto, dict[str, int], int]:
    """A copy with every input's size fixed, what symbols were taken for, and how many rows that is."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    known = {tensor.name for tensor in fixed.graph.initializer}
    inputs = [value for value in fixed.graph.input if value.name not in known]
    taken: dict[str, int] = {}
    first = next((v.type.tensor_type.shape.dim[0] for v in inputs if v.type.tensor_type.shape.dim), None)
    rows = first.dim_value if first is not None and first.dim_value > 0 else 1
    batch = first.dim_param if first is not None else ""
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            name = dim.dim_param
            is_batch = name == batch if name else axis == 0
            dim.dim_value = 1 if is_batch else sizes.get(name, UNTOLD_SIZE)
            if name and not is_batch:
                taken[name] = dim.dim_value
    for value in fixed.graph.output:  # declared sizes would contradict the fixed ones
        value.type.tensor_type.ClearField("shape")
    return fixed, taken, rows


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Tensor -> its shape, for those that are known as a whole."""
    graph = model.graph
    shapes: dict[str, Shape] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = [dim.dim_value for dim in tensor.shape.dim]
    return shapes


def _count(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Of one node; None if it can't be told."""
    if node.domain not in ("", "ai.onnx") or any(attribute.HasField("g") for attribute in node.attribute):
        return None
    if node.op_type in _FREE:
        return 0
    rule = _RULES.get(node.op_type)
    try:
        out = shapes[node.output[0]]
        if rule is not None:
            return rule(node, [shapes[name] for name in node.input if name], out)
        return prod(out) * _COST.get(node.op_type, 1)
    except (KeyError, IndexError):  # a shape that nobody knows before it runs
        return None


def _matmul(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    """Each output value is a product of two vectors of the inner size."""
    return 2 * prod(out) * ins[0][-1]


def _gemm(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * prod(out) * ins[0][0 if is_transposed else 1] + (prod(out) if len(ins) > 2 else 0)


def _conv(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    """Each output value is a product of a kernel of one group and what lies under it."""
    return 2 * prod(out) * prod(ins[3 if node.op_type == "QLinearConv" else 1][1:])


def _conv_transpose(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    """Each input value is multiplied with a kernel of one group."""
    return 2 * prod(ins[0]) * prod(ins[1][1:])


def _recurrent(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    """Two products for each step and direction: with the input, and with the state."""
    x, weights, recurrence = ins[:3]
    return 2 * x[0] * x[1] * (prod(weights) + prod(recurrence))


def _reduce(node: onnx.NodeProto, ins: Sequence[Shape], out: Shape) -> int:
    return prod(ins[0])


Rule = Callable[[onnx.NodeProto, Sequence[Shape], Shape], int]

_RULES: dict[str, Rule] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "Gemm": _gemm,
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"), _reduce
    ),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ArgMax", "ArgMin"), _reduce),
}

_COST = {
    "Softmax": 5,
    "LogSoftmax": 5,
    "LayerNormalization": 8,
    "BatchNormalization": 2,
    "InstanceNormalization": 6,
    "Gelu": 8,
    "Erf": 4,
    "Sigmoid": 4,
    "Tanh": 4,
    "HardSwish": 4,
}
"""Operations for each output value, about; those of others are counted as one."""

_FREE = frozenset(
    """
    Cast CastLike Concat Constant ConstantOfShape DepthToSpace Dropout Expand Flatten Gather GatherElements
    GatherND Identity OneHot Pad Range Reshape ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
    Squeeze Tile Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
"""They move or look up values, and compute none."""
