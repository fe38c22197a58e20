"""What a job says before it is checked: plain values that know the line they come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from batchonnx.errors import JobFileError, Problem

Place = tuple[str | int, ...]
"""Keys and list positions from the top of the job: ("features", "x", "columns", 0)."""

MAX_DEPTH = 40

# Beyond Python's own limit for turning digits into a number, they stay text.
_LONGEST_INT = 4000
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Unset:
    """A value with a variable in it that was given no value."""


UNSET = _Unset()


@dataclass(frozen=True)
class Node:
    """One value: a scalar, a list of nodes, or entries by key.

    line: where it starts, from 1; None for a job built in Python.
    text: a scalar as it is written in the file, for messages.
    key_line: where its key is written, when it has one.
    """

    value: Any
    line: int | None = None
    text: str = ""
    key_line: int | None = None

    def plain(self) -> Any:
        """The value without lines: dict, list, scalar."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, place: Place) -> Node | None:
        """The node at a place below this one."""
        node = self
        for part in place:
            below = dict(_children(node.value)).get(part)
            if below is None:
                return None
            node = below
        return node

    def lines(self, place: Place = ()) -> dict[str, int]:
        """Dotted key -> line, for everything below."""
        found = {}
        line = self.key_line or self.line
        if place and line is not None:
            found[dotted(place)] = line
        for key, node in _children(self.value):
            found |= node.lines((*place, key))
        return found

    def shown(self) -> str:
        """The value in one short line, as YAML would have it."""
        return shorten(self._flow())

    def _flow(self) -> str:
        if isinstance(self.value, dict):
            return "{" + ", ".join(f"{key}: {node._flow()}" for key, node in self.value.items()) + "}"
        if isinstance(self.value, list):
            return "[" + ", ".join(node._flow() for node in self.value) + "]"
        return self.text


def dotted(place: Place) -> str:
    """`features.x.columns`."""
    return ".".join(map(str, place))


def shorten(text: str, width: int = 80) -> str:
    """Text in one line of limited width."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def resolve_plain(text: str) -> Any:
    """A scalar without quotes as YAML 1.2's core schema reads it: null, bool, int, float or text."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        if len(text) > _LONGEST_INT:
            return text
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text


def from_python(data: Any, depth: int = 0) -> Node:
    """Nodes of a job given as Python data: mappings, lists, tuples, paths, dates and scalars.

    Raises JobFileError if it is nested without end, or text holds a NUL character.
    """
    if depth > MAX_DEPTH:
        raise JobFileError(
            Problem("the job is nested too deeply", {"expected": f"{MAX_DEPTH} levels at most"}, "flatten it")
        )
    if isinstance(data, Mapping):
        return Node({str(key): from_python(value, depth + 1) for key, value in data.items()})
    if isinstance(data, list | tuple):
        return Node([from_python(value, depth + 1) for value in data])
    if isinstance(data, os.PathLike):
        data = os.fspath(data)
    if isinstance(data, date):
        data = data.isoformat()
    if isinstance(data, str) and "\0" in data:
        raise JobFileError(
            Problem("a value has a NUL character in it", {"found": repr(data)[:80]}, "take it out")
        )
    return Node(data, text=repr(data))


def _children(value: Any) -> list[tuple[str | int, Node]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []
