"""From tensors to outputs: one call of the model, or one for each window of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from batchonnx.planning.bindings import ImageColumn
from batchonnx.planning.plan import Plan
from batchonnx.planning.sounds import windowed
from batchonnx.planning.texts import text_of
from batchonnx.runtime.session import Model
from batchonnx.scoring.frames import FRAMES
from batchonnx.scoring.pooling import Pooling
from batchonnx.scoring.reduce import Reduced
from batchonnx.scoring.windows import Windows

Predict = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[Any]]
"""(model outputs, model input -> rows) -> what the model gives for these rows, in the order asked."""


def predictor(plan: Plan, model: Model, reduced: Reduced | None = None) -> Predict:
    """What scores a batch of this plan. reduced: what the model's device does of it."""
    feature = windowed(plan.features)
    outputs = plan.outputs
    run: Predict = model.run
    if reduced is not None and reduced.tail is not None:
        outputs, run = reduced.outputs, partial(model.run, tail=reduced.tail)
    if any(isinstance(one, ImageColumn) and one.is_framed for one in plan.features):
        run = partial(_without_frames, run)
    if any(output.pool is not None for output in outputs):
        return Pooling(outputs, text_of(plan.features), run).run
    if feature is None:
        return run
    return Windows(feature, plan.features, plan.states, plan.outputs, run, plan.fixed_batch).run


def _without_frames(run: Predict, names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
    return run(names, {name: value for name, value in tensors.items() if name != FRAMES})
