"""Functions that a job names as `module:function`, imported with the job's folder on the path."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from batchonnx.errors import HookError, Problem


class HookExit(Exception):
    """A hook tried to end the process, by `sys.exit()` for example; it is an error like any other."""


def load_hook(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """Import a hook. where: the place in the job file, for the error.

    Raises HookError if the module can't be imported or has no such function. The function raises
    HookExit where it would end the process.
    """
    module_name, _, name = reference.partition(":")
    module = _import(module_name, reference, folder, {"job": where})
    function = getattr(module, name, None)
    if not callable(function):
        here = ", ".join(n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_"))
        facts = {"job": where, "found": here or "no functions"}
        facts["module"] = str(getattr(module, "__file__", module_name))
        raise HookError(
            Problem(f'the module {module_name} has no function "{name}"', facts, "correct the name")
        )
    return _without_exit(function)


def hook_source(function: Callable[..., Any], reference: str) -> str | None:
    """The file with a loaded hook's code; None for what is built in."""
    function = inspect.unwrap(function)
    try:
        return inspect.getsourcefile(function)
    except TypeError:  # a callable object has no code of its own; the module that made it has
        return getattr(sys.modules[reference.partition(":")[0]], "__file__", None)


def raised_at(error: BaseException) -> str:
    """`file:line  code` of the user's code that raised: where it called a library, not the library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}  {(error.text or '').strip()}".rstrip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    users = [frame for frame in frames if not _is_library(frame.filename)]
    last = next(reversed(users or frames), None)
    return f"{last.filename}:{last.lineno}  {last.line}".rstrip() if last is not None else "its call"


def _import(name: str, reference: str, folder: Path, facts: dict[str, str]) -> ModuleType:
    entry = str(folder)
    if entry not in sys.path:
        sys.path.insert(0, entry)
    title = f"importing the hook {reference} failed"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            title = f'no module "{missing}" for the hook {reference}'
        else:
            facts |= {"found": str(error), "at": raised_at(error)}
        fix = f"put {missing}.py into {folder}, or install the package that has it"
        raise HookError(Problem(title, facts, fix)) from error
    except (Exception, SystemExit) as error:
        facts |= {"found": f"{type(error).__name__}: {error}", "at": raised_at(error)}
        raise HookError(Problem(title, facts, "mend the module")) from error


def _without_exit(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: object) -> object:
        try:
            return function(*arguments)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            told: TracebackType | None = error.__traceback__
            raise HookExit(f"{type(error).__name__}: {error}").with_traceback(told) from error

    return call


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parents[1])


def _is_library(filename: str) -> bool:
    homes = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    return filename.startswith("<") or any(Path(filename).is_relative_to(home) for home in homes)
