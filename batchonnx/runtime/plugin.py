"""Execution providers that come as libraries of their own, by ONNX Runtime's interface for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchonnx.errors import DeviceError, Problem


def plugin_device(library: str, index: int = 0) -> Any:
    """ONNX Runtime's own description of a device of a plugin; those that aren't CPUs come first.

    Registers the library with this process, once. Raises DeviceError if it can't be loaded, or has no such
    device here.
    """
    import onnxruntime

    if not Path(library).is_file():
        raise DeviceError(
            Problem("the plugin's library isn't there", {"file": library}, "name the .so file itself")
        )
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        facts = {"found": f"onnxruntime {onnxruntime.__version__}"}
        fix = "pip install --upgrade onnxruntime: plugins came with 1.23"
        raise DeviceError(Problem("this ONNX Runtime takes no plugins", facts, fix))
    if not (devices := _devices(library)):
        try:
            onnxruntime.register_execution_provider_library(Path(library).stem, library)
        except Exception as error:
            # ONNX Runtime's classes derive from Exception and live in a private module.
            facts = {"file": library, "found": str(error).rpartition("with error: ")[2][:300]}
            fix = "ask its makers which onnxruntime it is for, and what it needs installed"
            raise DeviceError(Problem("the plugin's library can't be loaded", facts, fix)) from error
        devices = _devices(library)
    if index >= len(devices):
        facts = {"file": library, "found": f"{len(devices)} devices that it can use"}
        fix = "see what the plugin needs: a driver, a device of its own; or set engine.device: cpu"
        raise DeviceError(Problem("the plugin finds no device here", facts, fix))
    return devices[index]


def _devices(library: str) -> list[Any]:
    import onnxruntime

    found = [one for one in onnxruntime.get_ep_devices() if one.ep_metadata.get("library_path") == library]
    return sorted(found, key=lambda one: one.device.type == onnxruntime.OrtHardwareDeviceType.CPU)
