"""Where the batch axis is."""

from __future__ import annotations

import numpy as np


def move_batch_axis(rows: np.ndarray, axis: int) -> np.ndarray:
    """[n, *row] -> the same with n on `axis`, C-contiguous; the array itself where that is so."""
    return rows if axis == 0 else np.ascontiguousarray(np.moveaxis(rows, 0, axis))
