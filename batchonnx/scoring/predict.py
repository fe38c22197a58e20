"""From tensors to outputs: one call of the model, or one for each window of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batchonnx.planning.plan import Plan
from batchonnx.planning.sounds import windowed
from batchonnx.planning.texts import text_of
from batchonnx.runtime.session import Model
from batchonnx.scoring.pooling import Pooling
from batchonnx.scoring.windows import Windows

Predict = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[Any]]
"""(model outputs, model input -> rows) -> what the model gives for these rows, in the order asked."""


def predictor(plan: Plan, model: Model) -> Predict:
    """What scores a batch of this plan."""
    feature = windowed(plan.features)
    if any(output.pool is not None for output in plan.outputs):
        return Pooling(plan.outputs, text_of(plan.features), model.run).run
    if feature is None:
        return model.run
    return Windows(feature, plan.features, plan.states, plan.outputs, model.run, plan.fixed_batch).run
