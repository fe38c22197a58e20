"""Packages that only an export needs: imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from batchonnx.errors import DependencyError, Problem


def need(module: str, install: str) -> Any:
    """Import a module. install: what pip is told to get it. Raises DependencyError with that remedy."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        facts = {"found": str(error).splitlines()[0]}
        fix = f"pip install {install}"
        raise DependencyError(
            Problem(f"this export needs {package}, which isn't here", facts, fix)
        ) from error
