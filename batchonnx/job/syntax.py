"""Text that isn't YAML, told in a user's words with line, column and the likely cause."""

from __future__ import annotations

import re

from yaml.error import Mark, MarkedYAMLError

from batchonnx.errors import Problem
from batchonnx.job.node import shorten

# (part of the parser's message, part of its context, what is wrong, what to do)
_CAUSES = (
    (
        "that cannot start any token",
        "",
        "a value starts with a character that YAML keeps for itself",
        "put quotes around the value",
    ),
    ("found unexpected end of stream", "quoted scalar", "a quote is never closed", "close it"),
    ("found unexpected document separator", "quoted scalar", "a quote is never closed", "close it"),
    (
        "found unknown escape character",
        "",
        "a backslash inside double quotes means something else",
        "use single quotes, or write the backslash twice",
    ),
    (
        "mapping values are not allowed",
        "",
        'a ":" where none can be',
        'put quotes around text with ": " in it, and look for a missing ":" or other indentation one line up',
    ),
    (
        "sequence entries are not allowed",
        "",
        'a "- " where no list can begin',
        'begin the list on a line of its own, or write [a, b]',
    ),
    ("could not find expected ':'", "", 'a key without its ":"', 'write "key: value"'),
    ("expected ',' or ']'", "", 'a "[" without its "]", or a missing comma', "close it, or add the comma"),
    ("expected ',' or '}'", "", 'a "{" without its "}", or a missing comma', "close it, or add the comma"),
    (
        "did not find expected key",
        "block mapping",
        "this doesn't line up with the keys above",
        "indent keys that belong together alike; a value with quotes in it needs quotes around all of it",
    ),
    (
        "did not find expected '-' indicator",
        "block collection",
        "this doesn't line up with the list above",
        'indent the "- " of one list alike',
    ),
    (
        "did not find expected node content",
        "",
        "a value is missing",
        'look for a "[" or "{" that isn\'t closed, or a stray "," "]" "}"',
    ),
    ("found duplicate anchor", "", "two values have the same &name", "give each its own"),
)  # fmt: skip

_TOLD_AT_THEIR_BEGINNING = ("a quote is never closed", 'a key without its ":"')


def syntax_problem(error: MarkedYAMLError, text: str, shown: str) -> Problem:
    """What the YAML parser stumbled on; shown: the file's path."""
    message, context = error.problem or "", error.context or ""
    cause, fix = message or context or "it can't be parsed", "look at this line and the one before"
    for part, around, told, remedy in _CAUSES:
        if part in message and around in context:
            cause, fix = told, remedy
            break
    if "cannot start any token" in message and _at(error.problem_mark, text) == "\t":
        cause, fix = "a tab where YAML wants spaces", "indent with spaces"
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    if mark is None:
        return Problem(f"the job isn't YAML: {cause}", {"job": shown}, fix)
    if start is not None and cause in _TOLD_AT_THEIR_BEGINNING:
        mark = start
    lines = text.splitlines() or [""]
    line = min(mark.line, len(lines) - 1)
    facts = {
        "job": f"{shown}:{line + 1}:{mark.column + 1 if line == mark.line else len(lines[line]) + 1}",
        "found": shorten(lines[line]) or "an empty line",
    }
    if start is not None and start.line < line:
        facts["begun"] = f"line {start.line + 1}: {shorten(lines[start.line])}"
    return Problem(f"the job isn't YAML: line {line + 1}: {cause}", facts, fix)


def _at(mark: Mark | None, text: str) -> str:
    """The character at a place of the text; empty at its end."""
    return text[mark.index : mark.index + 1] if mark is not None else ""


_NOT_YAML = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What isn't printable, by section 5.1 of YAML 1.2."""


def character_problem(text: str, shown: str) -> Problem:
    """A character that no YAML file may have. The parser counts bytes up to it; here it is looked for."""
    found = _NOT_YAML.search(text)
    position = found.start() if found is not None else 0
    before = text[:position]
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    facts = {"job": f"{shown}:{line}:{column}", "found": f"character U+{ord(text[position]):04X}"}
    title = "the job isn't YAML: it has a control character in it"
    return Problem(title, facts, "take it out; a job file is plain text")
