"""How a session is made for a device."""

from __future__ import annotations

import os
import re
from typing import Any

from batchonnx.runtime.cores import usable_cores
from batchonnx.runtime.cuda import NoDriver, free_bytes, read_driver
from batchonnx.runtime.device import Device
from batchonnx.runtime.plugin import plugin_device
from batchonnx.runtime.providers import CUDA, OPENVINO, TENSORRT, provider_named
from batchonnx.storage.user_cache import cache_folder

KEPT_FREE = 0.1
"""Of a GPU's memory: ONNX Runtime's limit is of its arena alone, not of what libraries take."""


def session_arguments(device: Device, options: Any, model: str = "") -> dict[str, Any]:
    """Of an InferenceSession that is to be on a device.

    options: onnxruntime.SessionOptions, changed. model: its digest, for what is kept between runs.
    The libraries have been loaded (see `require.require_device`). Raises DeviceError for a plugin that
    can't be used.
    """
    import onnxruntime

    if device.is_cpu:
        return {"providers": [device.provider]}
    # What it writes to stderr is told by errors of ours.
    onnxruntime.set_default_logger_severity(4)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Where a kernel has a variant that adds in one order, that is taken.
    options.use_deterministic_compute = True
    if device.library is not None:
        options.add_provider_for_devices([plugin_device(device.library, device.index)], dict(device.options))
        return {}
    provider = provider_named(device.provider)
    if provider is OPENVINO:
        return {"providers": [(OPENVINO.name, {**_streams(device, options), **device.options})]}
    if provider is None or not provider.is_nvidia:
        return {"providers": [(device.provider, dict(device.options))]}
    cuda = {"device_id": str(device.index), **_limit(device)}
    if provider is CUDA:
        return {"providers": [(CUDA.name, {**cuda, **device.options})]}
    # What TensorRT doesn't take is CUDA's.
    tensorrt = {**_kept(device, model), **device.options, "device_id": str(device.index)}
    return {"providers": [(TENSORRT.name, tensorrt), (CUDA.name, {**CUDA.options, **cuda})]}


def is_on(session: Any, device: Device) -> bool:
    """Whether a session is on the device it was made for: ONNX Runtime takes the CPU without a word."""
    first: str = session.get_providers()[0]
    return first == device.provider or (device.library is not None and first != "CPUExecutionProvider")


def _streams(device: Device, options: Any) -> dict[str, str]:
    """As many calls at a time as there are workers: by itself OpenVINO runs one, and the others wait.

    Two threads made 61 calls/s of a CNN with a stream for each, and 30 without.
    """
    if (
        device.options.get("device_type", "CPU") != "CPU"
        or {"num_streams", "num_of_threads"} & device.options.keys()
    ):
        return {}
    # Ray's actors have one worker, and cores that this tells of.
    cores = int(os.environ.get("OMP_NUM_THREADS") or usable_cores())
    streams = max(1, cores // max(1, options.intra_op_num_threads))
    return {"num_of_threads": str(cores), "num_streams": str(streams)}


def _kept(device: Device, model: str) -> dict[str, str]:
    """Where engines and timings are kept: they are of one model and one kind of GPU."""
    try:
        gpu = re.sub(r"\W+", "-", read_driver().gpus[device.index].name)
    except (NoDriver, IndexError):
        return {}  # told when the session is opened
    folder = cache_folder() / "tensorrt" / model / gpu
    folder.mkdir(parents=True, exist_ok=True)
    return {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}


def _limit(device: Device) -> dict[str, str]:
    """Of the arena: our share of the memory, less where others have taken it already."""
    try:
        total = read_driver().gpus[device.index].total_bytes
        most = min(total * device.share, free_bytes(device.index))
    except (NoDriver, IndexError):
        return {}  # told when the session is opened
    return {"gpu_mem_limit": str(int(most * (1 - KEPT_FREE)))}
