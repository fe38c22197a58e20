"""The shapes that TensorRT builds its engine for, before the first batch has one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.lattice import rows_of
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.runtime.providers import TENSORRT
from batchonnx.runtime.signature import TensorSpec

_Range = tuple[str, str, str]
"""An input's smallest, usual and largest shape: 1x4, 16x64, 64x256."""


def with_engine_shapes(plan: Plan) -> Plan:
    """The plan, with one engine for all its batches; as it was, where the job says or the model fixes them.

    TensorRT builds an engine for minutes, and anew for every shape outside of what it was built for.
    Raises ContractError if the largest batch isn't known.
    """
    device = plan.device
    is_open = any(not isinstance(dim, int) for spec in plan.model.inputs for dim in spec.shape or (None,))
    if device.provider != TENSORRT.name or not is_open or "trt_profile_max_shapes" in device.options:
        return plan
    asked = plan.fixed_batch or plan.job.job.engine.batch_rows
    if asked == "auto":
        facts = {"job": plan.job.where("engine.batch_rows"), "expected": "a number", "found": "auto"}
        fix = "set engine.batch_rows: 64, say"
        raise ContractError(Problem("TensorRT builds its engine for the largest batch", facts, fix))
    ranges = {spec.name: _range(spec, plan, int(asked)) for spec in plan.model.inputs}
    if None in ranges.values():
        return plan  # shapes that nobody knows ahead: it builds as they come
    return replace(plan, device=replace(device, options={**device.options, **_profile(ranges)}))


def _range(spec: TensorSpec, plan: Plan, rows: int) -> _Range | None:
    text = text_of(plan.features)
    if text is not None and spec in text.inputs and text.lengths:
        short, long = text.lengths[0], text.lengths[-1]
        return f"1x{short}", f"{rows_of(long, rows)}x{long}", f"{rows_of(short, rows)}x{long}"
    row = spec.shape[1:] if spec.shape else (None,)
    if not all(isinstance(dim, int) for dim in row):
        return None
    inner = "".join(f"x{dim}" for dim in row)
    return f"{plan.fixed_batch or 1}{inner}", f"{rows}{inner}", f"{rows}{inner}"


def _profile(ranges: Mapping[str, _Range | None]) -> dict[str, str]:
    known = {name: found for name, found in ranges.items() if found is not None}
    return {
        f"trt_profile_{kind}_shapes": ",".join(f"{name}:{found[place]}" for name, found in known.items())
        for place, kind in enumerate(("min", "opt", "max"))
    }
