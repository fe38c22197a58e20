"""Nodes to a validated job, or to everything that is wrong with them.

Unknown keys are found first, and one that has an obvious meaning is read under that name: so a
typo is reported once, and doesn't hide or invent other problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from batchonnx.errors import Problem
from batchonnx.job.fix import suggest_value
from batchonnx.job.node import UNSET, Node, Place, dotted
from batchonnx.job.spec import Job
from batchonnx.job.words import Kind, describe, field_kinds, fields_by_key, fits, kinds, nearest

Where = Callable[[Place], str]
"""The place in the job file, for messages: `jobs/score.yaml:9  features.x.columns`."""


@dataclass(frozen=True)
class Checked:
    """job: None if there are problems."""

    job: Job | None
    problems: tuple[Problem, ...]


def check_job(root: Node, where: Where) -> Checked:
    """Validate a job's nodes; `where` must know the places of `root`."""
    unknown = _UnknownKeys(where)
    corrected = unknown.correct(root, [Kind(Job)], ())
    try:
        job = Job.model_validate(corrected.plain())
    except ValidationError as error:
        problems = [*unknown.problems, *_translate(error.errors(), corrected, where, unknown.renamed)]
        return Checked(None, tuple(problems))
    return Checked(None if unknown.problems else job, tuple(unknown.problems))


class _UnknownKeys:
    """Walks nodes and models together; leaves nodes without unknown keys.

    renamed: corrected places whose key was taken for another.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self.problems: list[Problem] = []
        self.renamed: dict[Place, Place] = {}

    def correct(self, node: Node, alternatives: list[Kind], place: Place) -> Node:
        kind = next((kind for kind in alternatives if kind.base is dict or kind.model is not None), None)
        if not isinstance(node.value, dict) or kind is None:
            return node
        if kind.base is dict:
            inner = kinds(kind.args[1])
            entries = {key: self.correct(child, inner, (*place, key)) for key, child in node.value.items()}
            return replace(node, value=entries)
        return node if kind.model is None else self._correct_section(node, kind.model, place)

    def _correct_section(self, node: Node, model: type[BaseModel], place: Place) -> Node:
        known = fields_by_key(model)
        entries: dict[str, Node] = {}
        for key, child in node.value.items():
            name = key
            if key not in known:
                absent = [name for name in known if name not in node.value and name not in entries]
                fitting = [name for name in absent if fits(child.value, field_kinds(known[name]))]
                near = nearest(key, fitting) or nearest(key, absent) or nearest(key, list(known))
                self.problems.append(self._problem(key, near, list(known), place))
                if near not in absent:
                    continue
                name = near
                self.renamed[(*place, name)] = (*place, key)
            entries[name] = self.correct(child, field_kinds(known[name]), (*place, name))
        return replace(node, value=entries)

    def _problem(self, key: str, near: str | None, known: list[str], place: Place) -> Problem:
        facts = {"job": self.where((*place, key)), "expected": f"one of: {', '.join(known)}", "found": key}
        elsewhere = [section for section in _sections_with(key) if section != dotted(place)]
        if near is not None:
            fix = f'did you mean "{near}"?'
        elif elsewhere:
            fix = f"it belongs to {' or '.join(elsewhere)}: move it there"
        else:
            fix = "leave it out"
        title = f'unknown key "{key}"' + (f" in {dotted(place)}" if place else "")
        return Problem(title, facts, fix)


def _sections_with(key: str) -> list[str]:
    """Where in a job a key would be known: `engine`, `features.NAME`."""
    found = []
    for name, field in fields_by_key(Job).items():
        kind = field_kinds(field)[0]
        inner = kinds(kind.args[1])[0] if kind.base is dict else kind
        if inner.model is not None and key in fields_by_key(inner.model):
            found.append(name if inner is kind else f"{name}.NAME")
    return found


def _translate(
    errors: list[ErrorDetails], root: Node, where: Where, renamed: dict[Place, Place]
) -> list[Problem]:
    """The validator's errors, one for each place, the deepest of several alternatives."""
    located = [(*_locate(error["loc"]), error) for error in errors]
    places = {place for place, _, _ in located}
    told: dict[Place, Problem] = {}
    for place, alternatives, error in located:
        node = root.at(place)
        if place in told or any(other[: len(place)] == place for other in places if len(other) > len(place)):
            continue
        if node is not None and node.value is UNSET:
            continue
        if error["type"] == "missing":
            told[place] = _missing(place, alternatives, root, where)
        elif error["type"] == "job_rule":
            told[place] = _broken_rule(place, error, root, where)
        elif not _below(place, renamed):
            told[place] = _wrong_value(place, alternatives, root, where)
    return list(told.values())


def _below(place: Place, renamed: dict[Place, Place]) -> bool:
    return any(place[: len(name)] == name for name in renamed)


def _locate(loc: tuple[str | int, ...]) -> tuple[Place, list[Kind]]:
    """The place in the data and what may stand there; the validator's location names unions' members too."""
    place: Place = ()
    alternatives = [Kind(Job)]
    rest = list(loc)
    while rest:
        if len(alternatives) > 1:
            rest.pop(0)
            if not rest:
                break
            is_key = isinstance(rest[0], str)
            alternatives = [k for k in alternatives if (k.model is not None if is_key else k.base is list)]
        part = rest.pop(0)
        place = (*place, part)
        kind = alternatives[0]
        if kind.model is not None:
            alternatives = field_kinds(fields_by_key(kind.model)[str(part)])
        else:
            alternatives = kinds(kind.args[-1])
    return place, alternatives


def _missing(place: Place, alternatives: list[Kind], root: Node, where: Where) -> Problem:
    section, key = place[:-1], place[-1]
    parent = root.at(section)
    present = ", ".join(parent.value) if parent is not None and parent.value else "no known key"
    facts = {"job": where(section), "expected": f"{key}: {describe(alternatives)}", "found": present}
    under = f" under {dotted(section)}" if section else ""
    return Problem(f'{dotted(section) or "the job"} has no "{key}"', facts, f'add "{key}: …"{under}')


def _broken_rule(place: Place, error: ErrorDetails, root: Node, where: Where) -> Problem:
    context: dict[str, Any] = error.get("ctx", {})
    pointed = (*place, context["key"]) if context["key"] else place
    facts = {"job": where(pointed if root.at(pointed) is not None else place)}
    facts |= {label: context[label] for label in ("expected", "found") if context[label]}
    return Problem(f"{dotted(place)}: {error['msg']}", facts, context["fix"])


def _wrong_value(place: Place, alternatives: list[Kind], root: Node, where: Where) -> Problem:
    node = root.at(place) or Node(None)
    expected = describe(alternatives)
    facts = {"job": where(place), "expected": expected, "found": _found(node, alternatives)}
    title = (
        f"{dotted(place) or 'a job'} must be {'keys with values' if _is_section(alternatives) else expected}"
    )
    return Problem(title, facts, suggest_value(place, node, alternatives))


def _is_section(alternatives: list[Kind]) -> bool:
    return any(kind.model is not None for kind in alternatives)


def _found(node: Node, alternatives: list[Kind]) -> str:
    """The value as written, with its kind where that is what is wrong."""
    value = node.value
    if value is None:
        return "nothing"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "keys",
    }
    told = names.get(type(value), type(value).__name__)
    words = any(kind.base is Literal for kind in alternatives)
    same = (words and isinstance(value, str)) or any(kind.base is type(value) for kind in alternatives)
    return node.shown() if same else f"{node.shown() or 'nothing'} ({told})"
