"""The seam to other people's tools for models: missing ones, what they print, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from batchonnx.errors import BatchonnxError, DependencyError, ModelFileError, Problem
from batchonnx.lifecycle.quiet import quiet
from batchonnx.runtime.model_file import ModelFile


def require_tools(purpose: str, extra: str, *modules: str) -> None:
    """Raises DependencyError, with the remedy, for a module that isn't there. Imports none."""
    for module in modules:
        if find_spec(module) is None:
            title = f"{purpose} needs the package {module.replace('_', '-')}"
            raise DependencyError(Problem(title, {}, f"pip install 'batchonnx[{extra}]'"))


@contextmanager
def working_on(file: ModelFile, tool: str, fix: str) -> Iterator[None]:
    """Let a tool work: it prints and logs nothing, and whatever it raises is told as this model's trouble.

    fix: what to do without it. Raises ModelFileError.
    """
    try:
        with quiet():
            yield
    except (BatchonnxError, MemoryError):
        raise
    except Exception as error:  # of any class: the tools have none of their own
        lines = [line for line in str(error).splitlines() if line.strip()]
        found = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        facts = {**file.facts, "found": found}
        raise ModelFileError(Problem(f"{tool} fails on the model", facts, fix)) from error
