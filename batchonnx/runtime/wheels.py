"""Which ONNX Runtime is installed: one of two wheels that own the same files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from batchonnx.errors import DependencyError, Problem

WHEELS = ("onnxruntime", "onnxruntime-gpu")


def installed_wheels() -> dict[str, str]:
    """Distribution -> version, for those of the two that are installed."""
    found = {}
    for wheel in WHEELS:
        try:
            found[wheel] = version(wheel)
        except PackageNotFoundError:
            continue
    return found


def require_onnxruntime() -> None:
    """Raise DependencyError, with the remedy, unless exactly one usable wheel is installed."""
    found = installed_wheels()
    if len(found) > 1:
        facts = {"found": " and ".join(f"{name} {number}" for name, number in found.items())}
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'batchonnx[cpu]' (or [gpu])"
        raise DependencyError(Problem("two wheels of ONNX Runtime overwrite each other", facts, fix))
    if not found:
        fix = "pip install 'batchonnx[cpu]' (or 'batchonnx[gpu]')"
        raise DependencyError(Problem("ONNX Runtime isn't installed", {}, fix))
    if find_spec("onnxruntime.capi") is None:
        fix = "pip install --force-reinstall 'batchonnx[cpu]' (or [gpu])"
        raise DependencyError(Problem("ONNX Runtime is installed, but its files are gone", {}, fix))
