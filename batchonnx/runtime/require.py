"""What keeps a device from being used here: found before a model is loaded, each cause told apart."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Iterator
from importlib.metadata import version

from batchonnx.errors import DeviceError, Problem
from batchonnx.runtime.cuda import LIBRARY, NO_DEVICE, Driver, NoDriver, read_driver
from batchonnx.runtime.device import Device
from batchonnx.runtime.providers import TENSORRT, Provider, provider_named
from batchonnx.runtime.wheels import require_one_wheel, require_onnxruntime

OLDEST_DRIVER = {12: "525.60", 13: "580"}
"""CUDA's major version -> the oldest Linux driver that runs programs built for it."""

_CPU_INSTEAD = "or set engine.device: cpu"


def require_device(device: Device) -> None:
    """Raises DeviceError with all that is missing, within milliseconds; DependencyError without a wheel.

    Loads CUDA's libraries, as a session would. What it can't foresee is told when a session is opened.
    """
    provider = provider_named(device.provider)
    if provider is None:
        return  # the CPU's, a plugin's, or one that no job asks for
    require_onnxruntime()
    refused = [_refused(name, fix) for name, fix in provider.refused.items() if name in device.options]
    if problems := [*refused, *_missing(provider, device)]:
        raise DeviceError(*problems)


def _missing(provider: Provider, device: Device) -> Iterator[Problem]:
    import onnxruntime

    if provider.name not in onnxruntime.get_available_providers():
        yield _other_wheel(provider)
        return
    if not provider.is_nvidia:
        return
    built_for = _cuda_of_wheel()
    try:
        yield from _unfit(read_driver(), built_for, device)
    except NoDriver as error:
        yield _no_driver(error)
    preload()
    absent = [name for name in _libraries(provider, device, built_for) if not _can_load(name)]
    if absent:
        remedy = provider.remedy.format(cuda=built_for)
        facts = {"missing": ", ".join(absent), "wheel": f"{provider.wheel} {version(provider.wheel)}"}
        beside = " (TensorRT: its tensorrt_libs)" if provider is TENSORRT else ""
        fix = f"{remedy}, or add the folder that has them{beside} to LD_LIBRARY_PATH; {_CPU_INSTEAD}"
        yield Problem(f"{_kind(absent)} for {provider.name}", facts, fix)


def _kind(absent: list[str]) -> str:
    """What is missing, in a word: of CUDA, cuDNN, TensorRT the one that brings the others as well."""
    if any("nvinfer" in name or "nvonnxparser" in name for name in absent):
        return "TensorRT isn't installed" if len(absent) <= 2 else "CUDA and TensorRT aren't installed"
    if all("cudnn" in name for name in absent):
        return "cuDNN isn't installed"
    return "CUDA isn't installed, or not whole,"


def _other_wheel(provider: Provider) -> Problem:
    import onnxruntime

    wheel = require_one_wheel()
    has = ", ".join(onnxruntime.get_available_providers())
    facts = {"expected": provider.wheel, "found": f"{wheel} {version(wheel)}, with {has}"}
    fix = f"pip uninstall -y {wheel}, then pip install 'batchonnx[{provider.extra}]'; {_CPU_INSTEAD}"
    return Problem(f"the installed ONNX Runtime has no {provider.name}", facts, fix)


def _unfit(driver: Driver, built_for: int, device: Device) -> Iterator[Problem]:
    visible = _visible()
    if driver.cuda[0] < built_for:
        oldest = OLDEST_DRIVER.get(built_for)
        expected = f"a driver for CUDA {built_for}" + (f": {oldest} or newer" if oldest else "")
        facts = {"expected": expected, "found": f"one for CUDA {driver.cuda[0]}.{driver.cuda[1]}"}
        fix = f"update the driver, or install an onnxruntime-gpu for CUDA {driver.cuda[0]}; {_CPU_INSTEAD}"
        yield Problem("the NVIDIA driver is too old for this onnxruntime-gpu", facts, fix)
    if device.index >= len(driver.gpus):
        names = ", ".join(f"{number}: {gpu.name}" for number, gpu in enumerate(driver.gpus))
        facts = {"asked": f"GPU {device.index}", "found": names or "no GPU", **visible}
        yield Problem(f"there is no GPU {device.index} here", facts, "name one of those that are there")


def _no_driver(error: NoDriver) -> Problem:
    if error.code == 0:
        facts = {"missing": f"{LIBRARY}, which comes with NVIDIA's driver", "found": str(error)}
        fix = f"install the driver; in a container, start that with its GPUs (--gpus all); {_CPU_INSTEAD}"
        return Problem("there is no NVIDIA driver here", facts, fix)
    facts = {"found": f"{LIBRARY}: {error}", **_visible()}
    if error.code == NO_DEVICE:
        fix = f"see what nvidia-smi lists, and whether CUDA_VISIBLE_DEVICES hides it; {_CPU_INSTEAD}"
        return Problem("the NVIDIA driver sees no GPU", facts, fix)
    fix = f"see what nvidia-smi says; after an update of the driver, restart the machine; {_CPU_INSTEAD}"
    return Problem("the NVIDIA driver doesn't start", facts, fix)


def _visible() -> dict[str, str]:
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": repr(told)} if told is not None else {}


def _refused(name: str, fix: str) -> Problem:
    return Problem(f"engine.provider_options.{name} can't be set", {"found": name}, fix)


def _libraries(provider: Provider, device: Device, cuda: int) -> Iterator[str]:
    for name in provider.libraries:
        if "cudnn" not in name or device.options.get("enable_cudnn") != "0":
            yield name.format(cuda=cuda)


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _cuda_of_wheel() -> int:
    """The major version of CUDA that the installed wheel was built for."""
    import onnxruntime

    return int(str(getattr(onnxruntime, "cuda_version", "") or "13").partition(".")[0])


def preload() -> None:
    """Load CUDA's libraries from where pip has put them. What it can't load, it prints: nobody asked."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
