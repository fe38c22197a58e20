"""Functions that a job names as `module:function`, imported with the job's folder on the path."""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from batchonnx.errors import HookError, Problem

_imported: set[str] = set()
"""Modules of the user's that are there because a hook was loaded."""


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


def forget_hooks() -> None:
    """Have the next `load_hook` read the user's modules anew.

    In a process that lives on, a notebook's for example, they may have been edited, and another
    job's folder may hold modules of the same names.
    """
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    importlib.invalidate_caches()


def hook_sources(function: Callable[..., Any], reference: str, folder: Path) -> list[Path]:
    """The files with a loaded hook's code: its modules, and what those import of the job's folder.

    Empty for what is built in.
    """
    modules = [sys.modules[reference.partition(":")[0]]]
    function = inspect.unwrap(function)
    if inspect.isroutine(function) and (home := sys.modules.get(_home(function))) is not None:
        modules.append(home)
    for module in modules:
        modules += [m for m in _used_modules(module) if m not in modules and _is_within(m, folder)]
    return [Path(file) for file in dict.fromkeys(map(_file, modules)) if file is not None]


def raised_at(error: BaseException) -> str:
    """`file:line  code` of the user's code that raised: where it called a library, not the library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}  {(error.text or '').strip()}".rstrip()
    # Not by extract_tb: a recursion without end has a thousand frames, and it looks for columns in each.
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_ours(frame.f_code.co_filename)
    ]
    users = [place for place in frames if not _is_library(place[0])]
    last = next(reversed(users or frames), None)
    if last is None:
        return "its call"
    file, number = last
    return f"{file}:{number}  {linecache.getline(file, number).strip()}".rstrip()


def _import(name: str, reference: str, folder: Path, facts: dict[str, str]) -> ModuleType:
    entry = str(folder)
    sys.path[:] = [entry, *(path for path in sys.path if path != entry)]
    title = f"importing the hook {reference} failed"
    before, was_off = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
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
    finally:
        # Written bytecode is taken for fresh by its source's size and second: too coarse for a quick edit.
        sys.dont_write_bytecode = was_off
        loaded = {new: sys.modules[new] for new in set(sys.modules) - before}
        _imported.update(new for new, module in loaded.items() if _is_within(module, folder))


def _used_modules(module: ModuleType) -> Iterator[ModuleType]:
    """Modules that a module names, or from which it has taken functions, classes or objects."""
    for value in list(vars(module).values()):
        used = value if isinstance(value, ModuleType) else sys.modules.get(_home(value))
        if used is not None:
            yield used


def _home(value: object) -> str:
    name = getattr(value, "__module__", None) or getattr(type(value), "__module__", None)
    return name if isinstance(name, str) else ""


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _is_within(module: ModuleType, folder: Path) -> bool:
    file = _file(module)
    return file is not None and Path(file).is_relative_to(folder)


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


@functools.lru_cache(1024)
def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parents[1])


@functools.lru_cache(1024)
def _is_library(filename: str) -> bool:
    homes = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    return filename.startswith("<") or any(Path(filename).is_relative_to(home) for home in homes)
