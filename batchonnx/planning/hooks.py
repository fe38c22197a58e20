"""Functions that a job names as `module:function`, imported with the job's folder on the path."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchonnx.errors import HookError, Problem


def load_hook(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """Import a hook. where: the place in the job file, for the error.

    Raises HookError if the module can't be imported or has no such function.
    """
    module_name, _, name = reference.partition(":")
    facts = {"job": where}
    entry = str(folder)
    if entry not in sys.path:
        sys.path.insert(0, entry)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        fix = f"put {missing}.py into {folder}, or install the package that has it"
        raise HookError(Problem(f'no module "{missing}" for the hook {reference}', facts, fix)) from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        facts |= {"found": f"{type(error).__name__}: {error}", "at": f"{last.filename}:{last.lineno}"}
        raise HookError(
            Problem(f"importing the hook {reference} failed", facts, "mend the module")
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        here = ", ".join(n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_"))
        facts |= {"found": here or "no functions", "module": str(getattr(module, "__file__", module_name))}
        raise HookError(
            Problem(f'the module {module_name} has no function "{name}"', facts, "correct the name")
        )
    return function  # type: ignore[no-any-return]
