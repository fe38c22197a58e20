"""Models of well-known sizes with weights that mean nothing: made by code, so that no network is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HIDDEN, HEADS, VOCABULARY, POSITIONS = 6, 384, 12, 30_522, 512
"""Of MiniLM-L6."""


class _Graph:
    """Nodes and weights, one behind the other."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._rng = np.random.default_rng(0)
        self._names = self._count()

    @staticmethod
    def _count() -> Iterator[str]:
        number = 0
        while True:
            yield f"v{number}"
            number += 1

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = next(self._names)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = next(self._names)
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        scale = (2.0 / max(1, int(np.prod(shape[1:])))) ** 0.5
        return self.constant(self._rng.standard_normal(shape, np.float32) * np.float32(scale))

    def save(self, path: Path, inputs: list[Any], outputs: list[Any]) -> Path:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def resnet(path: Path) -> Path:
    """pixels uint8[n, 3, 224, 224] -> scores float32[n, 1000]: ResNet-50, batch norms folded."""
    g = _Graph()
    mean, scale = g.constant(np.full((1, 3, 1, 1), 118.0)), g.constant(np.full((1, 3, 1, 1), 1 / 58.0))
    x = g.node("Mul", g.node("Sub", g.node("Cast", "pixels", to=TensorProto.FLOAT), mean), scale)

    def conv(x: str, width: int, out: int, size: int, stride: int = 1) -> str:
        pad = size // 2
        bias = g.constant(np.zeros(out))
        return g.node("Conv", x, g.random(out, width, size, size), bias, pads=[pad] * 4, strides=[stride] * 2)

    x = g.node("Relu", conv(x, 3, 64, 7, 2))
    x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        middle = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = g.node("Relu", conv(x, width, middle, 1))
            y = g.node("Relu", conv(y, middle, middle, 3, stride))
            y = conv(y, middle, 4 * middle, 1)
            beside = x if block else conv(x, width, 4 * middle, 1, stride)
            half = g.constant(0.5)  # as a batch norm would: 16 blocks don't overflow
            x = g.node("Relu", g.node("Mul", g.node("Add", y, beside), half))
            width = 4 * middle
    x = g.node("Flatten", g.node("GlobalAveragePool", x))
    g.nodes.append(helper.make_node("Gemm", [x, g.random(width, 1000)], ["scores"]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 3, 224, 224])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1000])
    return g.save(path, [pixels], [scores])


def encoder(path: Path) -> Path:
    """input_ids, attention_mask int64[n, t] -> hidden float32[n, t, 384]: a transformer of MiniLM's size."""
    g = _Graph()
    one = g.constant([1], np.int64)
    length = g.node("Slice", g.node("Shape", "input_ids"), one, g.constant([2], np.int64))
    positions = g.node("Slice", g.random(POSITIONS, HIDDEN), g.constant([0], np.int64), length)
    x = g.node("Add", g.node("Gather", g.random(VOCABULARY, HIDDEN), "input_ids"), positions)
    mask = g.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = g.node("Unsqueeze", mask, g.constant([1, 2], np.int64))
    mask = g.node("Mul", g.node("Sub", g.constant(1.0), mask), g.constant(-1e4))
    split, join = (g.constant([0, 0, *dims], np.int64) for dims in ((HEADS, HIDDEN // HEADS), (HIDDEN,)))

    def linear(x: str, width: int, out: int) -> str:
        return g.node("Add", g.node("MatMul", x, g.random(width, out)), g.constant(np.zeros(out)))

    def norm(x: str) -> str:
        return g.node("LayerNormalization", x, g.constant(np.ones(HIDDEN)), g.constant(np.zeros(HIDDEN)))

    for _ in range(LAYERS):
        q, k, v = (g.node("Reshape", linear(x, HIDDEN, HIDDEN), split) for _ in range(3))
        q, v = (g.node("Transpose", one, perm=[0, 2, 1, 3]) for one in (q, v))
        scores = g.node("MatMul", q, g.node("Transpose", k, perm=[0, 2, 3, 1]))
        scores = g.node("Mul", scores, g.constant((HIDDEN // HEADS) ** -0.5))
        weights = g.node("Softmax", g.node("Add", scores, mask), axis=-1)
        y = g.node("Transpose", g.node("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = norm(g.node("Add", x, linear(g.node("Reshape", y, join), HIDDEN, HIDDEN)))
        y = linear(x, HIDDEN, 4 * HIDDEN)
        erf = g.node("Erf", g.node("Mul", y, g.constant(0.5**0.5)))
        y = g.node("Mul", g.node("Mul", y, g.constant(0.5)), g.node("Add", erf, g.constant(1.0)))
        x = norm(g.node("Add", x, linear(y, 4 * HIDDEN, HIDDEN)))
    g.nodes.append(helper.make_node("Identity", [x], ["hidden"]))
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in names]
    return g.save(
        path, inputs, [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", "t", HIDDEN])]
    )
