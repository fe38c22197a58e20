"""Whether a row's prediction depends on the rows beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batchonnx.errors import HookRaised
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model, PredictError
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.predict import predictor
from batchonnx.scoring.windows import Ragged

ROWS = 12
ROUNDING = 1e-4
"""Differences up to this share of the largest output are rounding: sums taken in another order."""


def neighbour_difference(plan: Plan, model: Model, encoder: Encoder, chunk: Chunk) -> float | None:
    """The largest difference of an output when the same rows are scored together and split otherwise.

    As a share of the largest output. A model that normalizes or quantizes over its batch shows it;
    then predictions follow from the batch boundaries, which the plan fixes. None where it can't be
    told: a fixed batch, fewer than two rows, outputs that are no numbers, or rows that fail.
    """
    rows = min(ROWS, chunk.columns.num_rows)
    if plan.fixed_batch is not None or rows < 2:
        return None
    names = Decoder(plan.outputs, {}, None).model_outputs
    predict = predictor(plan, model)
    bound = [next(b for b in plan.outputs if name in map(b.key, b.sources)) for name in names]
    axes = [0 if binding.of_windows else binding.batch_axis for binding in bound]
    try:
        tensors_of = encoder.load(chunk.columns.slice(0, rows))
        together = [_flat(value) for value in predict(names, tensors_of(0, rows))]
        cut = rows // 3 or 1
        spans = (0, cut), (cut, rows)
        pieces = [[_flat(value) for value in predict(names, tensors_of(*span))] for span in spans]
    except (BadRow, PredictError, HookRaised):
        return None
    worst: float | None = None
    for whole, axis, *parts in zip(together, axes, *pieces, strict=True):
        if (difference := split_difference(whole, parts, axis)) is not None:
            worst = max(worst or 0.0, difference)
    return worst


def _flat(value: object) -> np.ndarray:
    """An output as one array: of rows, or of all windows of all rows."""
    return np.array(value.values if isinstance(value, Ragged) else value)


def split_difference(whole: np.ndarray, parts: Sequence[np.ndarray], axis: int) -> float | None:
    """How far an output of some rows together is from that of the same rows in parts.

    As a share of its largest value; None where they aren't numbers of the same shape. axis: of the rows.
    """
    if whole.dtype.kind not in "fiu" or any(part.ndim <= axis for part in parts):
        return None
    if len({(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}) > 1:
        return None
    split = np.concatenate(parts, axis)
    if split.shape != whole.shape or not whole.size:
        return None
    finite = whole[np.isfinite(whole)]
    scale = float(np.max(np.abs(finite.astype(np.float64)), initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):  # infinite less infinite
        difference = np.abs(whole.astype(np.float64) - split.astype(np.float64)) / scale
    return float(np.max(np.where(np.isfinite(difference), difference, 0.0)))
