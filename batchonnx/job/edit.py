"""Values that are put into the text of a job file: everything else stays as it was written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.variables import mark, marked_keys, unmark

Value = int | str


def set_in_file(path: Path, section: str, values: Mapping[str, Value]) -> None:
    """Write values into a section of a job file, in one step; comments and layout stay.

    Raises JobFileError if the file can't be written, or if the section can't be changed without its
    neighbours.
    """
    data = path.read_bytes()
    mark_of_bytes = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    text = data.removeprefix(mark_of_bytes).decode()
    changed = set_values(text, section, values, str(path))
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_bytes(mark_of_bytes + changed.encode())
        staged.chmod(path.stat().st_mode)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise _by_hand(section, values, str(path), error.strerror or str(error)) from error


def set_values(text: str, section: str, values: Mapping[str, Value], shown: str) -> str:
    """The text of a job file with values in a section of it, which is made if it isn't there.

    shown: the file, for messages. Raises JobFileError where a value is a variable, or the section is an
    alias: then it belongs to others, too.
    """
    marked = mark(text)
    root = yaml.compose(marked, Loader=yaml.CSafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise _by_hand(section, values, shown, "a file in braces")
    changed = _insert(marked, root, section, values, shown)
    expected = yaml.load(marked, yaml.CSafeLoader)
    expected[section] = {**(expected.get(section) or {}), **values}
    try:
        is_as_meant = yaml.load(changed, yaml.CSafeLoader) == expected
    except yaml.YAMLError:
        is_as_meant = False
    if not is_as_meant:
        raise _by_hand(section, values, shown, "a layout that this doesn't know")
    return unmark(changed)


def _insert(text: str, root: Any, section: str, values: Mapping[str, Value], shown: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    found = next(((key, value) for key, value in root.value if key.value == section), None)
    if found is None:
        lines = [f"{section}:", *(f"  {key}: {value}" for key, value in values.items())]
        before = "" if text.endswith("\n") else newline
        return text + before + newline + newline.join(lines) + newline
    key, node = found
    if isinstance(node, yaml.ScalarNode) and not node.value:
        told = ", ".join(f"{name}: {value}" for name, value in values.items())
        at = text.index(":", key.end_mark.index) + 1
        return f"{text[:at]} {{{told}}}{text[at:]}"
    if not isinstance(node, yaml.MappingNode) or node.start_mark.index < key.end_mark.index:
        raise _by_hand(section, values, shown, "an alias")
    for name, value in reversed(list(values.items())):
        text = _set(text, section, name, value, shown, newline)
    return text


def _set(text: str, section: str, name: str, value: Value, shown: str, newline: str) -> str:
    """One value. Parsed anew for each: what was put in has moved the rest."""
    root: Any = yaml.compose(text, Loader=yaml.CSafeLoader)
    node = next(node for key, node in root.value if key.value == section)
    for key, old in node.value:
        if key.value == name:
            start, end = old.start_mark.index, old.end_mark.index
            if not isinstance(old, yaml.ScalarNode) or marked_keys(text[start:end]):
                raise _by_hand(section, {name: value}, shown, unmark(text[start:end]).strip())
            return f"{text[:start]}{value}{text[end:]}"
    if not node.value:
        at = text.index("{", node.start_mark.index) + 1
        return f"{text[:at]}{name}: {value}{text[at:]}"
    first = node.value[0][0].start_mark
    between = ", " if node.flow_style else newline + " " * first.column
    return f"{text[: first.index]}{name}: {value}{between}{text[first.index :]}"


def _by_hand(section: str, values: Mapping[str, Value], shown: str, found: str) -> JobFileError:
    told = ", ".join(f"{key}: {value}" for key, value in values.items())
    facts = {"job": f"{shown}  {section}", "found": found}
    return JobFileError(
        Problem("the job file can't be changed for you", facts, f"write {section}: {{{told}}} yourself")
    )
