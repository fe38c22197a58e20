"""Rows drawn at random from what a model says of its inputs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.feed import RandomRows, Tensors
from batchonnx.runtime.graph import parse_model
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec

UNTOLD_SIZE = 8
"""Of a dimension that nothing tells the size of."""

SMALL = 2
"""Integers are 0 or 1 where nothing tells what else the model takes: masks, types, flags are so."""

_WORDS = ("one", "two", "three", "four", "fünf", "")


class RandomFeed:
    """Seeded values of the inputs' types and shapes, the same for every model with the same inputs.

    Floats are of a standard normal distribution, integers from 0 to what the model looks up with them, text
    one of a few words.
    """

    def __init__(
        self, asked: RandomRows, signatures: Sequence[ModelSignature], bounds: Mapping[str, int]
    ) -> None:
        """signatures: of all models that get these rows; a size that one of them fixes holds for all.

        Raises ContractError for inputs that can't be drawn, or that the models don't share.
        """
        self._asked, self._bounds = asked, bounds
        self._shapes = _common_shapes(signatures)
        self._batch = _batch_dim(self._shapes)
        self.fixed_batch = self._batch if isinstance(self._batch, int) else None
        whole = self.fixed_batch or 1
        self.rows = ceil(asked.count / whole) * whole
        self._specs: dict[str, TensorSpec] = {spec.name: spec for spec in signatures[0].inputs}
        self._drawn = {name: self._draw(spec) for name, spec in self._specs.items()}

    def of(self, signature: ModelSignature) -> _Typed:
        """The rows in one model's own types."""
        return _Typed(self, signature)

    def batch_axis(self, name: str) -> int | None:
        """Where an input's rows are; None: it is the same for every batch."""
        shape = self._shapes[name]
        if self._batch is None and shape[:1] and not isinstance(shape[0], int):
            return 0
        return next(
            (axis for axis, dim in enumerate(shape) if dim == self._batch and self._batch is not None), None
        )

    def cut(self, name: str, start: int, stop: int) -> np.ndarray:
        """An input's values for these rows."""
        drawn, axis = self._drawn[name], self.batch_axis(name)
        return drawn if axis is None else drawn[(slice(None),) * axis + (slice(start, stop),)]

    def _draw(self, spec: TensorSpec) -> np.ndarray:
        axis = self.batch_axis(spec.name)
        shape = [
            self.rows if number == axis else self._size(dim)
            for number, dim in enumerate(self._shapes[spec.name])
        ]
        # Of each input's own, so that one more input changes no other.
        rng = np.random.default_rng([self._asked.seed, zlib.crc32(spec.name.encode())])
        if spec.dtype.startswith("float"):
            return rng.standard_normal(shape)
        if spec.dtype == "bool":
            return np.asarray(rng.integers(0, 2, shape) > 0)
        if spec.dtype == "string":
            return np.array(_WORDS, object)[rng.integers(0, len(_WORDS), shape)].reshape(shape)
        if "mask" in spec.name.lower():
            return np.ones(shape, np.int64)
        return np.asarray(rng.integers(0, self._bounds.get(spec.name, SMALL), shape))

    def _size(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        return self._asked.sizes.get(dim, UNTOLD_SIZE) if dim is not None else UNTOLD_SIZE


class _Typed:
    """A `RandomFeed` for one model."""

    def __init__(self, feed: RandomFeed, signature: ModelSignature) -> None:
        self._feed, self._specs = feed, signature.inputs
        self.rows, self.fixed_batch = feed.rows, feed.fixed_batch

    def tensors(self, start: int, stop: int) -> Tensors:
        """See `Feed`."""
        return {spec.name: _typed(self._feed.cut(spec.name, start, stop), spec.dtype) for spec in self._specs}

    def columns(self, values: Mapping[str, Any], start: int, stop: int) -> dict[str, np.ndarray]:
        """See `Feed`."""
        return {}


def lookup_sizes(path: Path) -> dict[str, int]:
    """Integer input -> how many entries the table has that the model looks its values up in.

    Only where the model looks up at once (an embedding): through steps that leave values as they are.
    """
    model = parse_model(path)
    if model is None:
        return {}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    origin = {value.name: value.name for value in model.graph.input if value.name not in weights}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten") and node.output:
            if node.input and node.input[0] in origin:
                origin[node.output[0]] = origin[node.input[0]]
            if node.op_type == "Identity" and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type in ("Gather", "GatherBlockQuantized") and node.input[1] in origin:
            axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
            dims = weights.get(node.input[0])
            if dims:
                name = origin[node.input[1]]
                found[name] = min(found.get(name, dims[axis]), dims[axis])
    return found


def _common_shapes(signatures: Sequence[ModelSignature]) -> dict[str, tuple[Dim, ...]]:
    first = signatures[0]
    shapes: dict[str, tuple[Dim, ...]] = {}
    for spec in first.inputs:
        shape = _drawable(first, spec)
        for other in signatures[1:]:
            match = next((s for s in other.inputs if s.name == spec.name), None)
            if match is None or {s.name for s in other.inputs} != {s.name for s in first.inputs}:
                raise _other_inputs(first, other)
            shape = _merged(first, other, spec, shape, _drawable(other, match))
        shapes[spec.name] = shape
    return shapes


def _drawable(signature: ModelSignature, spec: TensorSpec) -> tuple[Dim, ...]:
    if spec.kind != "tensor" or not _is_numpy(spec.dtype):
        title = f'no values can be drawn for the model input "{spec.name}"'
        facts = {"model": signature.path, "found": str(spec), "expected": "a tensor of a type that numpy has"}
        raise ContractError(Problem(title, facts, "give rows that a job feeds it with: --job JOB"))
    return spec.shape if spec.shape is not None else (None,)


def _is_numpy(dtype: str) -> bool:
    if dtype == "string":
        return True
    try:
        return np.dtype(dtype).kind in "fiub"
    except TypeError:
        return False


def _merged(
    a: ModelSignature, b: ModelSignature, spec: TensorSpec, one: tuple[Dim, ...], two: tuple[Dim, ...]
) -> tuple[Dim, ...]:
    """A shape that both models take: a size that either fixes."""
    fixed = [{dim for dim in pair if isinstance(dim, int)} for pair in zip(one, two, strict=False)]
    if len(one) != len(two) or any(len(sizes) > 1 for sizes in fixed):
        raise _other_inputs(a, b)
    return tuple(next(iter(sizes), dim) for sizes, dim in zip(fixed, one, strict=True))


def _other_inputs(a: ModelSignature, b: ModelSignature) -> ContractError:
    facts = {
        "a": f"{a.path}: {', '.join(map(str, a.inputs))}",
        "b": f"{b.path}: {', '.join(map(str, b.inputs))}",
    }
    return ContractError(
        Problem("the two models don't take the same inputs", facts, "compare models of one signature")
    )


def _batch_dim(shapes: Mapping[str, tuple[Dim, ...]]) -> Dim:
    """What the first axis of the first input that has one is called, or its size."""
    return next((shape[0] for shape in shapes.values() if shape), None)


def _typed(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "string":
        return values
    return np.ascontiguousarray(values, dtype=np.dtype(dtype)).reshape(values.shape)
