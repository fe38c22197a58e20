"""A job file's text as nodes: YAML 1.2 with lines, variables filled in, all its problems together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from yaml.error import MarkedYAMLError
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.node import MAX_DEPTH, UNSET, Node, Place, dotted, resolve_plain
from batchonnx.job.syntax import character_problem, syntax_problem
from batchonnx.job.variables import fill, is_name, mark, marked_keys, unmark, unused_settings

MOST_VALUES = 1_000_000
"""With aliases written out; ten lines of them can stand for more than a machine holds."""

_STRING = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Document:
    """root: None where nothing can be made of the text. problems: everything wrong with it as YAML."""

    root: Node | None
    problems: tuple[Problem, ...]


def read_document(text: str, variables: Mapping[str, str], shown: str) -> Document:
    """Parse the text of a job file; shown: its path, for messages."""
    marked = mark(text)
    reader = _Reader(marked, variables, shown)
    try:
        root = reader.document()
    except MarkedYAMLError as error:
        told = (
            _too_deep(shown)
            if "nesting depth" in (error.problem or "")
            else syntax_problem(error, text, shown)
        )
        return Document(None, (*reader.variable_problems(), *reader.problems, told))
    except ReaderError:
        return Document(None, (character_problem(text, shown),))
    except JobFileError as error:
        return Document(None, (*reader.variable_problems(), *reader.problems, *error.problems))
    unused = unused_settings(variables, reader.used, shown)
    return Document(root, (*reader.variable_problems(), *unused, *reader.problems))


def _too_deep(job: str) -> Problem:
    facts = {"job": job, "expected": f"{MAX_DEPTH} levels at most"}
    return Problem("the job is nested too deeply", facts, "look for brackets that aren't closed")


@dataclass
class _Reader:
    """One pass over the parser's events; problems and variables gather on the way."""

    text: str
    variables: Mapping[str, str]
    shown: str
    problems: list[Problem] = field(default_factory=list)
    used: dict[str, list[tuple[int, Place]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._events: Iterator[Any] = yaml.parse(self.text, Loader=yaml.CLoader)
        self._anchors: dict[str, Node | None] = {}
        self._sizes: dict[str, int] = {}
        self._values = 0

    def document(self) -> Node | None:
        root = None
        for event in self._events:
            if isinstance(event, NodeEvent):
                root = self._node(event, ())
            elif isinstance(event, DocumentStartEvent) and root is not None:
                self._report("a second document begins", event, (), "keep one job in a file; leave out ---")
                for rest in self._events:
                    if isinstance(rest, ScalarEvent):
                        self._note_variables(rest, ())
                break
        return root

    def variable_problems(self) -> list[Problem]:
        """Variables without a value, each once with its lines."""
        problems = []
        for key, uses in self.used.items():
            line, place = uses[0]
            facts = {"job": f"{self.shown}:{line}  {dotted(place)}".rstrip()}
            if not is_name(key):
                facts |= {"expected": "letters, digits, _ and -", "found": f"{{{{ {key} }}}}"}
                problems.append(
                    Problem(f'"{key}" can\'t name a variable', facts, "write {{ day }}, for example")
                )
            elif key not in self.variables:
                others = sorted({str(other) for other, _ in uses} - {str(line)}, key=int)
                facts |= {"also": f"line {', '.join(others)}"} if others else {}
                problems.append(Problem(f'variable "{key}" has no value', facts, f"--set {key}=value"))
        return problems

    def _node(self, event: Any, place: Place) -> Node:
        if len(place) > MAX_DEPTH:
            raise JobFileError(_too_deep(self._job(event, place[:3])))
        if isinstance(event, AliasEvent):
            return self._alias(event, place)
        before = self._values
        self._values += 1
        if event.anchor:
            self._anchors[event.anchor] = None
        node = self._anchorless(event, place)
        if event.anchor:
            self._anchors[event.anchor] = node
            self._sizes[event.anchor] = self._values - before
        return node

    def _anchorless(self, event: Any, place: Place) -> Node:
        if event.tag is not None and not (isinstance(event, ScalarEvent) and str(event.tag) == _STRING):
            self._report(f"a tag, {event.tag}, means nothing in a job", event, place, "leave the tag out")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, place)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, place)
        return self._mapping(event, place)

    def _alias(self, event: Any, place: Place) -> Node:
        line = event.start_mark.line + 1
        node = self._anchors.get(event.anchor)
        if node is not None:
            self._values += self._sizes[event.anchor]
            if self._values > MOST_VALUES:
                facts = {"job": self._job(event, place[:3]), "expected": f"{MOST_VALUES:,} values at most"}
                fix = "write fewer aliases of aliases"
                raise JobFileError(Problem("the job's aliases stand for too many values", facts, fix))
            return node
        if event.anchor in self._anchors:
            self._report(
                f"*{event.anchor} stands inside of &{event.anchor}", event, place, "write the value out"
            )
        else:
            fix = f"put &{event.anchor} before the value that is meant, or quotes around the text"
            self._report(f"*{event.anchor} refers to nothing", event, place, fix)
        return Node(UNSET, line, f"*{event.anchor}")

    def _scalar(self, event: Any, place: Place) -> Node:
        self._note_variables(event, place)
        keys = marked_keys(event.value)
        line = event.start_mark.line + 1
        written = unmark(self.text[event.start_mark.index : event.end_mark.index])
        if any(key not in self.variables for key in keys):
            return Node(UNSET, line, written)
        value = fill(event.value, self.variables)
        if "\0" in value:
            self._report("a value has a NUL character in it", event, place, "take it out")
            return Node(UNSET, line, written)
        if keys:
            written = f"{value}  from {written}"
        is_plain = not event.style and event.tag is None
        return Node(resolve_plain(value) if is_plain else value, line, written)

    def _sequence(self, start: Any, place: Place) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, (*place, len(items))))
        return Node(items, start.start_mark.line + 1)

    def _mapping(self, start: Any, place: Place) -> Node:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, place)
            line = event.start_mark.line + 1
            where = (*place, key) if key is not None else place
            node = replace(self._node(next(self._events), where), key_line=line)
            if key is None:
                continue
            if key in entries:
                first = entries[key].key_line
                self._report(
                    f'key "{dotted(where)}" is given twice',
                    event,
                    where,
                    "keep one of the two",
                    {"first": f"line {first}"},
                )
            else:
                entries[key] = node
        return Node(entries, start.start_mark.line + 1)

    def _key(self, event: Any, place: Place) -> str | None:
        """A key as text, whatever it looks like: a model may well have an input named `0`."""
        if isinstance(event, ScalarEvent):
            self._note_variables(event, place)
            return fill(event.value, self.variables)
        self._report("a key isn't text", event, place, "put quotes around it")
        self._node(event, (*place, "?"))
        return None

    def _note_variables(self, event: Any, place: Place) -> None:
        used = marked_keys(event.value)
        written = self.text[event.start_mark.index : event.end_mark.index]
        for number, line in enumerate(written.split("\n"), event.start_mark.line + 1):
            for key in marked_keys(line):
                if key in used:
                    self.used.setdefault(key, []).append((number, place))

    def _report(
        self, title: str, event: Any, place: Place, fix: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.problems.append(Problem(title, {"job": self._job(event, place), **(more or {})}, fix))

    def _job(self, event: Any, place: Place) -> str:
        return f"{self.shown}:{event.start_mark.line + 1}  {dotted(place)}".rstrip()
