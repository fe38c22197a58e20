"""Rows drawn at random from what a model says of its inputs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.feed import RandomRows
from batchonnx.lifecycle.tensor_feed import TensorFeed, batch_axis, batch_dim, is_numpy
from batchonnx.runtime.graph import parse_model
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec

UNTOLD_SIZE = 8
"""Of a dimension that nothing tells the size of."""

SMALL = 2
"""Integers are 0 or 1 where nothing tells what else the model takes: masks, types, flags are so."""

_WORDS = ("one", "two", "three", "four", "fünf", "")


def random_feeds(
    asked: RandomRows, signatures: Sequence[ModelSignature], bounds: Mapping[str, int]
) -> list[TensorFeed]:
    """Seeded values of the inputs' types and shapes: the same for each of the models, in its own types.

    Floats are of a standard normal distribution, integers from 0 to what the model looks up with them, text
    is one of a few words. A size that one of the models fixes holds for all.
    bounds: integer input -> how many values it may have.
    Raises ContractError for inputs that can't be drawn, or that the models don't share.
    """
    shapes = _common_shapes(signatures)
    batch = batch_dim(shapes)
    whole = batch if isinstance(batch, int) else 1
    rows = ceil(asked.count / whole) * whole
    values = {}
    for spec in signatures[0].inputs:
        axis = batch_axis(shapes[spec.name], batch)
        shape = [
            rows if number == axis else _size(dim, asked.sizes)
            for number, dim in enumerate(shapes[spec.name])
        ]
        # Of each input's own, so that one more input changes no other.
        rng = np.random.default_rng([asked.seed, zlib.crc32(spec.name.encode())])
        values[spec.name] = _draw(spec, shape, bounds.get(spec.name, SMALL), rng)
    return [TensorFeed(values, shapes, signature) for signature in signatures]


def _draw(spec: TensorSpec, shape: Sequence[int], bound: int, rng: np.random.Generator) -> np.ndarray:
    if spec.dtype.startswith("float"):
        return rng.standard_normal(shape)
    if spec.dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape) > 0)
    if spec.dtype == "string":
        return np.array(_WORDS, object)[rng.integers(0, len(_WORDS), shape)].reshape(shape)
    if "mask" in spec.name.lower():
        return np.ones(shape, np.int64)
    return np.asarray(rng.integers(0, bound, shape))


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    return sizes.get(dim, UNTOLD_SIZE) if dim is not None else UNTOLD_SIZE


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
    if spec.kind != "tensor" or not is_numpy(spec.dtype):
        title = f'no values can be drawn for the model input "{spec.name}"'
        facts = {"model": signature.path, "found": str(spec), "expected": "a tensor of a type that numpy has"}
        raise ContractError(Problem(title, facts, "give rows that a job feeds it with: --job JOB"))
    return spec.shape if spec.shape is not None else (None,)


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
