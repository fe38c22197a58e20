"""From a job file, or a dict, to a validated job; everything that is wrong with it in one error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.check import check_job
from batchonnx.job.document import read_document
from batchonnx.job.node import Node, Place, dotted, from_python
from batchonnx.job.spec import JobFile
from batchonnx.job.variables import check_values
from batchonnx.job.words import nearest

_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


def load_job(path: str | Path, variables: Mapping[str, str] = _NO_VARIABLES) -> JobFile:
    """Read and validate a job file.

    path: YAML 1.2; shown in messages as given. variables: what each `{{ key }}` in it stands for.
    Raises JobFileError with every problem of the file: unreadable, not YAML, variables without a
    value or without a use, duplicate and unknown keys, missing keys, wrong values.
    """
    path = Path(path)
    shown = str(path)
    variables = {key: str(value) for key, value in variables.items()}
    text = _read(path)
    document = read_document(text, variables, shown)
    problems = [*check_values(variables), *document.problems]
    root = document.root
    if root is None:
        raise JobFileError(*problems, *([] if document.problems else [_empty(shown)]))
    if not isinstance(root.value, dict):
        raise JobFileError(*problems, _not_keys(root, shown))
    where = _Where(root, shown)
    checked = check_job(root, where)
    problems += checked.problems
    if checked.job is None or problems:
        raise JobFileError(*sorted(problems, key=where.line_of))
    return JobFile(job=checked.job, path=path, folder=path.parent.absolute(), lines=where.lines)


def job_from_dict(spec: Mapping[str, Any], folder: str | Path = ".") -> JobFile:
    """Validate a job built in Python; folder: where relative paths count from.

    Tuples count as lists and paths as text; `{{ key }}` has no meaning here.
    Raises JobFileError with every problem, as `load_job` does.
    """
    checked = check_job(from_python(spec), dotted)
    if checked.job is None:
        raise JobFileError(*checked.problems)
    return JobFile(job=checked.job, path=None, folder=Path(folder).absolute())


class _Where:
    """Places of a job file as messages show them."""

    def __init__(self, root: Node, shown: str) -> None:
        self.lines = root.lines()
        self.shown = shown

    def __call__(self, place: Place) -> str:
        for end in range(len(place), 0, -1):
            line = self.lines.get(dotted(place[:end]))
            if line is not None:
                return f"{self.shown}:{line}  {dotted(place)}"
        return f"{self.shown}  {dotted(place)}".rstrip()

    def line_of(self, problem: Problem) -> int:
        """The line that a problem names, to show problems in the file's order."""
        match = re.match(r":(\d+)", problem.facts.get("job", "").removeprefix(self.shown))
        return int(match[1]) if match else 0


def _read(path: Path) -> str:
    """The file's text, without a byte order mark."""
    shown = str(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise JobFileError(_missing(path)) from None
    except IsADirectoryError:
        jobs = sorted(map(str, _yaml_files(path)))
        fix = f"name the file: {', '.join(jobs[:5])}" if jobs else "name the job file itself"
        raise JobFileError(Problem(f'"{shown}" is a folder, not a job file', {"job": shown}, fix)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "check the path and its permissions"
        raise JobFileError(
            Problem(f'job file "{shown}" can\'t be read: {reason}', {"job": shown}, fix)
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        facts = {
            "job": f"{shown}:{line}",
            "expected": "UTF-8 text",
            "found": f"byte 0x{data[error.start]:02x}",
        }
        fix = "save it as UTF-8, or check that this is the job and not the model or the data"
        raise JobFileError(Problem(f'job file "{shown}" isn\'t UTF-8 text', facts, fix)) from None


def _missing(path: Path) -> Problem:
    shown = str(path)
    try:
        siblings = [file.name for file in _yaml_files(path.parent)]
    except OSError:
        facts = {"job": shown, "found": f'no folder "{path.parent}"'}
        return Problem(f'there is no job file "{shown}"', facts, "check the path")
    near = nearest(path.name, siblings)
    fix = (
        f"did you mean {path.parent / near}?"
        if near
        else "check the path, or let batchonnx write one: batchonnx init"
    )
    return Problem(f'there is no job file "{shown}"', {"job": shown}, fix)


def _yaml_files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix in (".yaml", ".yml")]


def _empty(shown: str) -> Problem:
    facts = {"job": shown, "expected": "a job: model, input, output, …", "found": "nothing"}
    return Problem(
        f'job file "{shown}" is empty', facts, f"let batchonnx write it: batchonnx init MODEL DATA > {shown}"
    )


def _not_keys(root: Node, shown: str) -> Problem:
    facts = {
        "job": f"{shown}:{root.line}",
        "expected": "keys with values: model, input, output, …",
        "found": root.shown() or "nothing",
    }
    return Problem(f'"{shown}" isn\'t a job', facts, 'begin with "model:" on a line of its own')
