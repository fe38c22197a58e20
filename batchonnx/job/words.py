"""What a key of the job file can hold, read off the models' annotations and said in a user's words."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_ORDER: tuple[Any, ...] = (bool, float, int, str)


@dataclass(frozen=True)
class Kind:
    """One thing that a value may be.

    base: bool, int, float, str, list, dict, Any, Literal or a model.
    args: a list's item, a dict's key and value, or a Literal's values. at_least, at_most: of a number.
    least, most: how long a text or a list is.
    """

    base: Any
    args: tuple[Any, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    least: int = 0
    most: int | None = None
    told: str = ""

    @property
    def model(self) -> type[BaseModel] | None:
        """The section, if this kind is one."""
        return self.base if isinstance(self.base, type) and issubclass(self.base, BaseModel) else None


def kinds(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[Kind]:
    """The alternatives of an annotation; null is none of them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return kinds(inner, (*metadata, *more))
    if origin in (Union, types.UnionType):
        members = (member for member in get_args(annotation) if member is not type(None))
        return [kind for member in members for kind in kinds(member, metadata)]
    flat = [part for entry in metadata for part in _constraints(entry)]
    return [
        Kind(
            origin or annotation,
            get_args(annotation),
            at_least=next((_number(part.ge) for part in flat if isinstance(part, Ge)), None),
            at_most=next((_number(part.le) for part in flat if isinstance(part, Le)), None),
            least=next((part.min_length for part in flat if isinstance(part, MinLen)), 0),
            most=next((part.max_length for part in flat if isinstance(part, MaxLen)), None),
            told=next((entry.description or "" for entry in metadata if isinstance(entry, FieldInfo)), ""),
        )
    ]


def field_kinds(field: FieldInfo) -> list[Kind]:
    """The alternatives of a model's field."""
    return kinds(field.annotation, tuple(field.metadata))


def fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a section as the job file writes them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def describe(alternatives: list[Kind]) -> str:
    """`a list of text`, `"auto" or a whole number, 1 or more`, `one of: zstd, snappy`."""
    bases = [kind.base for kind in alternatives]
    # A whole number is a number: say the wider of the two only.
    shown = [kind for kind in alternatives if not (kind.base is int and float in bases)]
    shown.sort(key=lambda kind: _ORDER.index(kind.base) if kind.base in _ORDER else _rank(kind))
    words = list(dict.fromkeys(map(_describe_one, shown)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def fits(value: object, alternatives: list[Kind]) -> bool:
    """A value is of the right sort at first sight: text, a number, a list, keys."""
    sorts: dict[type, tuple[Any, ...]] = {str: (str, Literal), int: (int, float)}
    wanted = sorts.get(type(value), (type(value),))
    return any(
        kind.base in wanted or (kind.model is not None and isinstance(value, dict)) for kind in alternatives
    )


def nearest(word: str, known: list[str] | Mapping[str, Any]) -> str | None:
    """The known name that was probably meant."""
    by_folded = {name.replace("_", "").lower(): name for name in known}
    folded = word.replace("_", "").replace("-", "").replace(" ", "").lower()
    if folded in by_folded:
        return by_folded[folded]
    for name in known:
        # Two letters swapped: nearer than a name that is one letter shorter.
        if sorted(name) == sorted(word):
            return name
    near = get_close_matches(word, known, 1)
    return near[0] if near else None


def _rank(kind: Kind) -> int:
    """Fixed words before scalars, lists and sections after them."""
    return -1 if kind.told or kind.base is Literal else len(_ORDER)


def _constraints(entry: Any) -> list[Any]:
    return list(entry.metadata) if isinstance(entry, FieldInfo) else [entry]


def _number(bound: object) -> float | None:
    """A bound that can be told as it is."""
    return bound if isinstance(bound, int | float) else None


def _describe_one(kind: Kind) -> str:
    if kind.told:
        return kind.told
    if kind.model is not None:
        return f"keys with values ({', '.join(fields_by_key(kind.model))})"
    if kind.base is Literal:
        values = [f'"{value}"' for value in kind.args]
        return values[0] if len(values) == 1 else f"one of: {', '.join(map(str, kind.args))}"
    if kind.base is dict:
        has_sections = kinds(kind.args[1])[0].model is not None
        return "names, each with its keys" if has_sections else "names with values"
    if kind.base is list:
        return _describe_list(kind)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind.base]
    return words + _bounds(kind) + (" (not empty)" if kind.least else "")


def _describe_list(kind: Kind) -> str:
    if not kind.args or kind.args[0] is Any:
        return "a list"
    item = kinds(kind.args[0])[0]
    words = (item.told or {int: "whole numbers", float: "numbers", str: "text"}[item.base]) + _bounds(item)
    if kind.most is None:
        return f"a list of {words}" + (" (not empty)" if kind.least else "")
    return f"a list of {kind.most if kind.least == kind.most else f'{kind.least} to {kind.most}'} {words}"


def _bounds(kind: Kind) -> str:
    """What a number may be."""
    if kind.at_most is None:
        return f" ({kind.at_least} or more)" if kind.at_least is not None else ""
    return f" (at most {kind.at_most})" if kind.at_least is None else f" ({kind.at_least} to {kind.at_most})"
