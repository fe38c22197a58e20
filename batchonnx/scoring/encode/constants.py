"""The same value for every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batchonnx.planning.bindings import Constant


def constant_slicer(feature: Constant) -> Callable[[int, int], dict[str, np.ndarray]]:
    """Rows of a block as long as the longest batch so far; or the value itself, if no axis counts rows."""
    name, axis = feature.input.name, feature.batch_axis
    value = np.ascontiguousarray(feature.value) if feature.value.ndim else feature.value
    if not feature.per_row:
        return lambda start, stop: {name: value}
    row = np.expand_dims(value, axis)
    block = np.repeat(row, 0, axis)
    before = (slice(None),) * axis

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        nonlocal block
        if block.shape[axis] < stop - start:
            block = np.repeat(row, stop - start, axis)
        return {name: np.ascontiguousarray(block[(*before, slice(stop - start))])}

    return rows
