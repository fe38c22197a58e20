"""Which ONNX Runtime is installed: one of several wheels that own the same files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from batchonnx.errors import DependencyError, Problem

WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")


def installed_wheels() -> dict[str, str]:
    """Distribution -> version, for those of them that are installed. Imports none."""
    found = {}
    for wheel in WHEELS:
        try:
            found[wheel] = version(wheel)
        except PackageNotFoundError:
            continue
    return found


def require_one_wheel() -> str:
    """The one wheel that is installed, found by its metadata alone: about a millisecond.

    Raises DependencyError, with the remedy, if there are several, or none.
    """
    found = installed_wheels()
    if len(found) > 1:
        facts = {"found": " and ".join(f"{name} {number}" for name, number in found.items())}
        fix = f"pip uninstall -y {' '.join(found)}, then pip install 'batchonnx[cpu]' (or [gpu])"
        raise DependencyError(Problem("two wheels of ONNX Runtime overwrite each other", facts, fix))
    if not found:
        fix = "pip install 'batchonnx[cpu]' (or 'batchonnx[gpu]')"
        raise DependencyError(Problem("ONNX Runtime isn't installed", {}, fix))
    return next(iter(found))


def require_onnxruntime() -> None:
    """Import ONNX Runtime. Raises DependencyError unless exactly one wheel is there, and whole."""
    wheel = require_one_wheel()
    fix = f"pip install --force-reinstall {wheel}"
    try:
        import onnxruntime
    except ImportError as error:
        facts = {"found": str(error)}
        raise DependencyError(Problem(f"{wheel} is installed, but can't be imported", facts, fix)) from error
    # Where the other wheel was removed, a folder with a few files is left: an empty namespace package.
    if not hasattr(onnxruntime, "InferenceSession"):
        raise DependencyError(Problem(f"{wheel} is installed, but its files are gone", {}, fix))
