"""What to write instead of a value that a key can't hold."""

from __future__ import annotations

from typing import Literal

from batchonnx.job.node import Node, Place, resolve_plain, shorten
from batchonnx.job.words import Kind, describe, fields_by_key, nearest

_TRUE, _FALSE = ("yes", "y", "on", "1"), ("no", "n", "off", "0")


def suggest_value(place: Place, node: Node, alternatives: list[Kind]) -> str:
    """The next step for the value at a place, as near to what was written as can be."""
    key = next((str(part) for part in reversed(place) if isinstance(part, str)), "")
    bases = {kind.base for kind in alternatives}
    lead = f"{key}: " if place and isinstance(place[-1], str) else ""
    if node.value is None:
        return f'give "{key}" a value, or leave it out where it isn\'t needed' if key else "write a job"
    section = alternatives[0].model if len(alternatives) == 1 else None
    if section is not None and not isinstance(node.value, dict | list):
        keys = fields_by_key(section)
        first = next((name for name, field in keys.items() if field.is_required()), next(iter(keys)))
        return f"write {lead}{{{first}: {node.shown()}}}"
    if isinstance(node.value, str):
        return _instead_of_text(node.value, lead, alternatives)
    if isinstance(node.value, bool | int | float):
        if str in bases:
            return f'write it in quotes: {lead}"{node.text.split("  from ")[-1]}"'
        if any(_holds(kind, str) for kind in alternatives):
            return f'write a list: {lead}["{node.text}"]'
        if not isinstance(node.value, float) and any(_holds(kind, int) for kind in alternatives):
            return f"write a list: {lead}[{node.text}]"
    if isinstance(node.value, list) and key == "column":
        return "name one column, or use columns: [A, B]"
    return f"write {describe(alternatives)}"


def _instead_of_text(text: str, lead: str, alternatives: list[Kind]) -> str:
    bases = {kind.base for kind in alternatives}
    if bool in bases and str not in bases and text.lower() in (*_TRUE, *_FALSE):
        return f"write {lead}{'true' if text.lower() in _TRUE else 'false'}"
    read = resolve_plain(text)
    if read is not None and any(kind.base is type(read) for kind in alternatives if kind.base is not str):
        return f"write it without quotes: {lead}{text}"
    if any(_holds(kind, str) for kind in alternatives):
        return f"write a list: {lead}[{shorten(text)}]"
    choices = [str(value) for kind in alternatives if kind.base is Literal for value in kind.args]
    near = nearest(text, choices)
    return f'did you mean "{near}"?' if near else f"write {describe(alternatives)}"


def _holds(kind: Kind, item: type) -> bool:
    """The kind is a list of such items."""
    if kind.base is not list or not kind.args:
        return False
    inner = kind.args[0]
    return inner is item or getattr(inner, "__origin__", None) is item
