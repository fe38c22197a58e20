"""Variables of a job file: `{{ day }}` in its text, `--set day=2026-11-22` on the command line.

A value takes the variable's place inside one YAML scalar, after the file's structure is known:
whatever it holds (`: `, `#`, quotes), it can't become another key, comment or line. Without
quotes around it, it is read as YAML reads plain text: `batch_rows: {{ n }}` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from batchonnx.errors import JobFileError, Problem

# While YAML is parsed, braces stand as private-use characters: `{{ day }}` alone would be a mapping.
# Each is as long as what it stands for, so that columns in messages stay right.
_OPEN, _CLOSE = "\ue0b7\ue0b7", "\ue0b8\ue0b8"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BRACES = re.compile(r"\{\{([^{}\n\r]*)\}\}")
_MARKED = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")


def parse_settings(items: Sequence[str]) -> dict[str, str]:
    """`["day=2026-11-22", ...]` as a dict; a value may hold `=` and may be empty.

    Raises JobFileError with every item that has no `=`, no proper name, or a name given before.
    """
    settings: dict[str, str] = {}
    problems = []
    for item in items:
        key, equals, value = item.partition("=")
        key = key.strip()
        facts = {"expected": "key=value", "found": item or "nothing"}
        if not equals:
            fix = f"write --set {key or 'key'}=value"
            problems.append(Problem(f'--set {item!r} has no "="', facts, fix))
        elif not is_name(key):
            fix = "a name has letters, digits, _ and -, and starts with a letter: --set day=2026-11-22"
            problems.append(Problem(f"--set {item!r} doesn't begin with a variable's name", facts, fix))
        elif settings.get(key, value) != value:
            facts = {"found": f"{key}={settings[key]} and {key}={value}"}
            problems.append(Problem(f'--set gives "{key}" two values', facts, "give it once"))
        else:
            settings[key] = value
    problems += check_values(settings)
    if problems:
        raise JobFileError(*problems)
    return settings


def check_values(variables: Mapping[str, str]) -> list[Problem]:
    """A problem for each value that holds a line break or another control character."""
    return [
        Problem(
            f'the value of variable "{key}" has a control character in it',
            {"expected": "one line of text", "found": repr(value)[:80]},
            "leave out line breaks and other control characters",
        )
        for key, value in variables.items()
        if any((ord(letter) < 32 and letter != "\t") or letter in "\x7f\x85\u2028\u2029" for letter in value)
    ]


def is_name(text: str) -> bool:
    """Text can name a variable."""
    return _NAME.fullmatch(text) is not None


def mark(text: str) -> str:
    """The text with every `{{ key }}` written so that YAML takes it for a plain word."""
    return _BRACES.sub(lambda match: f"{_OPEN}{match[1]}{_CLOSE}", text)


def unmark(text: str) -> str:
    """The text as it was before `mark`."""
    return text.replace(_OPEN, "{{").replace(_CLOSE, "}}")


def marked_keys(text: str) -> list[str]:
    """What stands between the braces, in order; not always a proper name."""
    return [key.strip() for key in _MARKED.findall(text)]


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Marked text with the variables' values in; those without a value stay as `{{ key }}`."""
    return _MARKED.sub(lambda match: variables.get(match[1].strip(), unmark(match[0])), text)


def unused_settings(variables: Iterable[str], used: Iterable[str], shown: str) -> list[Problem]:
    """A problem for each given variable that the job file doesn't have; shown: the file's path."""
    known = sorted(set(used))
    problems = []
    for key in variables:
        if key in known:
            continue
        near = get_close_matches(key, known, 1)
        facts = {
            "job": shown,
            "expected": f"one of: {', '.join(known)}" if known else "no variables",
            "found": f"--set {key}=…",
        }
        fix = (
            f"did you mean --set {near[0]}=…?"
            if near
            else f"leave it out, or write {{{{ {key} }}}} into the job"
        )
        problems.append(Problem(f'the job has no variable "{key}"', facts, fix))
    return problems
