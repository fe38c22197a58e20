"""The devices of this machine that a run uses, and how many workers feed them."""

from __future__ import annotations

from dataclasses import replace

from batchonnx.engines.devices import Devices
from batchonnx.planning.plan import Plan
from batchonnx.runtime import cuda
from batchonnx.runtime.chain import open_again
from batchonnx.runtime.lanes import IN_FLIGHT
from batchonnx.runtime.providers import provider_named
from batchonnx.runtime.session import Model


def open_devices(plan: Plan, model: Model) -> Devices:
    """All GPUs that this process sees, but for what has nothing to do; the one that the job names.

    model: the job's, on the first of them. Raises DeviceError for a GPU that can't be used.
    """
    provider = provider_named(model.device.provider)
    if provider is None or not provider.is_nvidia:
        return Devices([model], [None])
    gpus = cuda.read_driver().gpus
    if ":" in plan.job.job.engine.device:
        return Devices([model], [gpus[model.device.index]])
    used = min(len(gpus), plan.chunks)
    others = [open_again(plan.model, 1, replace(model.device, index=index)) for index in range(1, used)]
    return Devices([model, *others], gpus[:used])


def feeders(devices: Devices, cores: int, asked: int | None, chunks: int) -> int:
    """Workers that feed devices. asked: by the job; None: one for each core, and each batch on a GPU.

    One that waits for its GPU needs no core. Never more than there are chunks, nor fewer than devices.
    """
    waiting = IN_FLIGHT * sum(gpu is not None for gpu in devices.gpus)
    wanted = asked if asked is not None else cores + waiting
    return max(len(devices.models), min(wanted, chunks))
