"""Packages: ONNX Runtime's two wheels, and whether versions go together."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from batchonnx.doctor.symptom import Symptom, Symptoms
from batchonnx.errors import DependencyError
from batchonnx.runtime.wheels import WHEELS, installed_wheels, require_onnxruntime

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[[^]]*])?\s*>=\s*(?P<least>[\d.]+)(?:.*extra\s*==\s*[\"'](?P<extra>\w+))?"
)
_OURS = "batchonnx"
IMPORTED = ("numpy", "pyarrow", "onnx")
"""Compiled packages without which no row is read."""


@dataclass(frozen=True)
class _Requirement:
    name: str
    least: str
    extra: str | None


def check_python() -> Symptoms:
    """The interpreter, and batchonnx itself."""
    python, ours = platform.python_version(), _version(_OURS) or "not installed"
    told = f"Python {python}, batchonnx {ours}, {platform.system()} {platform.machine()}"
    if tuple(map(int, platform.python_version_tuple()[:2])) < (3, 11):
        yield Symptom("python", "bad", told, "use Python 3.11 or newer")
    else:
        minor = ".".join(platform.python_version_tuple()[:2])
        yield Symptom("python", "good", told, alike=f"Python {minor}, batchonnx {ours}")


def check_onnxruntime() -> Symptoms:
    """One of the two wheels, whole, and as its metadata says."""
    found = installed_wheels()
    try:
        require_onnxruntime()
    except DependencyError as error:
        problem = error.problems[0]
        told = "; ".join([problem.title, *problem.facts.values()])
        yield Symptom("onnxruntime", "bad", told, problem.fix, alike=told)
        return
    ((wheel, number),) = found.items()
    is_old = _older(number, _least(wheel))
    loaded = _loaded("onnxruntime")
    if loaded != number:
        told = f"{wheel} is {number} by its metadata, and {loaded} by its code"
        fix = f"pip uninstall -y {' '.join(WHEELS)}, then pip install {wheel}=={number}"
        yield Symptom("onnxruntime", "bad", told, fix, alike=told)
    elif is_old:
        told, fix = f"{wheel} {number}, wanted is {_least(wheel)} or newer", f"pip install --upgrade {wheel}"
        yield Symptom("onnxruntime", "bad", told, fix, alike=f"{wheel} {number}")
    else:
        yield Symptom("onnxruntime", "good", f"{wheel} {number}", alike=f"{wheel} {number}")


def check_packages() -> Symptoms:
    """What batchonnx requires is there, and new enough; what is optional is new enough if it is there."""
    names, wrong = [], False
    for wanted in _requirements():
        found = _version(wanted.name)
        if wanted.name in WHEELS or wanted.extra == "test":
            continue
        told = f"{wanted.name} {found or 'is missing'}"
        if (found is None and wanted.extra is None) or (found is not None and _older(found, wanted.least)):
            wrong = True
            fix = f"pip install --upgrade '{wanted.name}>={wanted.least}'"
            found_told = told if found is None else f"{told}, wanted is {wanted.least} or newer"
            yield Symptom("packages", "bad", found_told, fix, alike=told)
        elif found is not None:
            names.append(told)
    if (broken := next((one for name in IMPORTED for one in _check_import(name)), None)) is not None:
        wrong = True  # the first one alone: those that build upon it fail as well
        yield broken
    if not wrong:
        yield Symptom("packages", "good", ", ".join(dict.fromkeys(names)), alike=", ".join(names))


def _check_import(name: str) -> Symptoms:
    number = _version(name)
    if number is None:
        return  # told of already
    try:
        loaded = _loaded(name)
    except Exception as error:  # whatever a broken package raises is what is to be told
        told = f"{name} {number} can't be imported: {' '.join(str(error).split())[:200]}"
        yield Symptom("packages", "bad", told, f"pip install --force-reinstall {name}=={number}")
        return
    if loaded.split("+")[0] != number.split("+")[0]:
        told = f"{name} is {number} by its metadata, and {loaded} by its code"
        yield Symptom("packages", "bad", told, f"pip install --force-reinstall {name}=={number}")


def _loaded(name: str) -> str:
    return str(getattr(import_module(name), "__version__", "unknown"))


def _requirements() -> Iterator[_Requirement]:
    try:
        told = requires(_OURS) or []
    except PackageNotFoundError:
        return
    for line in told:
        if found := _REQUIREMENT.match(line):
            yield _Requirement(found["name"], found["least"], found["extra"])


def _least(wheel: str) -> str:
    return next((wanted.least for wanted in _requirements() if wanted.name == wheel), "0")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _older(found: str, least: str) -> bool:
    """Releases alone are compared: no requirement of ours asks for more."""

    def release(text: str) -> list[int]:
        match = re.match(r"[\d.]+", text)
        return [int(part) for part in (match[0] if match else "0").strip(".").split(".")]

    return release(found) < release(least)
