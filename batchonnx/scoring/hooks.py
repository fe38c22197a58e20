"""A plan's hooks, ready to be called: here, or by way of the processes that run them."""

from __future__ import annotations

from collections.abc import Callable

from batchonnx.planning.bindings import HookFeature
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.plan import Plan
from batchonnx.scoring.decode.hook import RemoteColumn
from batchonnx.scoring.encode.hook import Function, RemoteHook
from batchonnx.scoring.hook_processes import running_hooks


def feature_hooks(plan: Plan) -> dict[str, Function | RemoteHook]:
    """`HookFeature.name` -> its function, loaded, or what asks a process for it. Raises HookError."""
    job, elsewhere = plan.job, running_hooks(plan)
    return {
        feature.name: elsewhere.feature(feature)
        if elsewhere is not None
        else load_hook(feature.function, job.folder, job.where(f"features.{feature.name}.python"))
        for feature in plan.features
        if isinstance(feature, HookFeature)
    }


def output_hooks(plan: Plan) -> dict[str, Callable[..., object] | RemoteColumn]:
    """Output column -> its function, loaded, or what asks a process for it. Raises HookError."""
    job, elsewhere = plan.job, running_hooks(plan)
    return {
        output.name: elsewhere.output(output)
        if elsewhere is not None and output.source.kind == "tensor"
        else load_hook(output.function, job.folder, job.where(f"outputs.{output.name}.python"))
        for output in plan.outputs
        if output.function is not None
    }
