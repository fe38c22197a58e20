"""Tensors that are there as a whole, fed batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from batchonnx.lifecycle.feed import Tensors
from batchonnx.runtime.signature import Dim, ModelSignature

Shapes = Mapping[str, tuple[Dim, ...]]
"""Model input -> its shape as declared, or as several models together fix it."""


class TensorFeed:
    """Values by input name, in one model's own types."""

    def __init__(self, values: Mapping[str, Any], shapes: Shapes, signature: ModelSignature) -> None:
        """values: arrays, all with as many rows where they have any; a sequence is fed as it is."""
        self._values, self._specs = values, signature.inputs
        batch = batch_dim(shapes)
        self._axes = {name: batch_axis(shape, batch) for name, shape in shapes.items()}
        counts = [values[name].shape[axis] for name, axis in self._axes.items() if axis is not None]
        self.rows = counts[0] if counts else 1
        self.fixed_batch = (batch if isinstance(batch, int) else None) if counts else 1

    def tensors(self, start: int, stop: int) -> Tensors:
        """See `Feed`."""
        return {spec.name: _typed(self._cut(spec.name, start, stop), spec.dtype) for spec in self._specs}

    def columns(self, values: Mapping[str, Any], start: int, stop: int) -> dict[str, np.ndarray]:
        """See `Feed`."""
        return {}

    def _cut(self, name: str, start: int, stop: int) -> Any:
        value, axis = self._values[name], self._axes.get(name)
        return value if axis is None else value[(slice(None),) * axis + (slice(start, stop),)]


def batch_dim(shapes: Shapes) -> Dim:
    """What the first axis of the first input that has one is called, or its size."""
    return next((shape[0] for shape in shapes.values() if shape), None)


def batch_axis(shape: tuple[Dim, ...], batch: Dim) -> int | None:
    """Where an input's rows are; None: it is the same for every batch."""
    if batch is None:
        return 0 if shape and not isinstance(shape[0], int) else None
    return next((axis for axis, dim in enumerate(shape) if dim == batch), None)


def is_numpy(dtype: str) -> bool:
    """Whether an input of this type can be fed: numpy has no bfloat16, no 8-bit floats, no 4-bit integers."""
    if dtype == "string":
        return True
    try:
        return np.dtype(dtype).kind in "fiub"
    except TypeError:
        return False


def _typed(values: Any, dtype: str) -> Any:
    if dtype == "string" or not isinstance(values, np.ndarray):
        return values
    return np.ascontiguousarray(values, dtype=np.dtype(dtype)).reshape(values.shape)
