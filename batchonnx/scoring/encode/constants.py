"""The same value for every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batchonnx.planning.bindings import Constant


def constant_slicer(feature: Constant, batch_rows: int) -> Callable[[int, int], dict[str, np.ndarray]]:
    """Rows of a block that is made once; or the value itself, where the input has no batch axis."""
    name, axis = feature.input.name, feature.batch_axis
    value = np.ascontiguousarray(feature.value) if feature.value.ndim else feature.value
    if not feature.per_row:
        return lambda start, stop: {name: value}
    block = np.repeat(np.expand_dims(value, axis), batch_rows, axis)
    if axis == 0:
        return lambda start, stop: {name: block[: stop - start]}
    before = (slice(None),) * axis
    return lambda start, stop: {name: np.ascontiguousarray(block[(*before, slice(stop - start))])}
