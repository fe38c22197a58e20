"""Globs: `*`, `?` and `[…]` within a name, `**` for any folders."""

from __future__ import annotations

import re

_WILD = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[")
_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "[": r"\["}


def is_glob(pattern: str) -> bool:
    """Whether anything in it is wild."""
    return _WILD.search(pattern) is not None


def literal_prefix(pattern: str) -> str:
    """What every name that matches begins with."""
    match = _WILD.search(pattern)
    return pattern if match is None else pattern[: match.start()]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A regular expression for whole names: `**/` is any folders, `*` and `?` stay within a name."""
    parts = []
    for token in _TOKEN.findall(pattern):
        if token.startswith("[") and len(token) > 1:
            inside = token[1:-1].replace("\\", r"\\")
            parts.append(f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
        else:
            parts.append(_REGEX.get(token) or re.escape(token))
    return re.compile("".join(parts), re.DOTALL)
