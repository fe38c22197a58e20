"""Random filters beside what SQL says of a row, evaluated naively: true, false or unknown (None)."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

Row = dict[str, Any]
Test = Callable[[Row], bool | None]

SCHEMA = pa.schema(
    [
        ("i8", pa.int8()),
        ("u64", pa.uint64()),
        ("i64", pa.int64()),
        ("f32", pa.float32()),
        ("f64", pa.float64()),
        ("cents", pa.decimal128(5, 2)),
        ("text", pa.string()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("yes", pa.bool_()),
        ("day", pa.date32()),
    ]
)
NUMERIC = ["i8", "u64", "i64", "f32", "f64", "cents"]
WORDS = ["", "a", "ab", "b", "it's"]
DAYS = [datetime.date(2026, 11, day) for day in (21, 22, 23)]
EDGES = ["0", "1", "-1", "+2", "0.5", "-0.5", "1.001", "1.10", "0.1", "127", "128", "-129", "1e3", "999.99"]
EDGES += ["1000", "-1e30", "9007199254740993", "18446744073709551615", "18446744073709551616", "1e400"]

_FLOATS = st.sampled_from(
    [0.0, -0.0, 0.5, 1.0, 2.0, -1.0, float("nan"), float("inf"), float(np.float32(0.1))]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i8": st.sampled_from([0, 1, 2, -1, 127, -128]),
    "u64": st.sampled_from([0, 1, 2, 2**53 + 1, 2**64 - 1]),
    "i64": st.sampled_from([0, 1, 2, -1, 2**53 + 1, 2**53, -(2**63)]),
    "f32": _FLOATS,
    "f64": _FLOATS | st.sampled_from([0.1, 1e308]),
    "cents": st.sampled_from([Decimal(text) for text in ("0", "1.00", "1.10", "-1", "999.99", "0.5")]),
    "text": st.sampled_from(WORDS),
    "kind": st.sampled_from(WORDS),
    "yes": st.booleans(),
    "day": st.sampled_from(DAYS),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), max_size=12
)

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def joined(values: list[bool | None], decisive: bool) -> bool | None:
    """Or (decisive: true) and and (decisive: false) of three values."""
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def compared(sign: str, left: Any, right: Any) -> bool | None:
    return None if left is None or right is None else _OPERATORS[sign](left, right)


def read_number(text: str, column: str) -> Decimal | float:
    """A number as it is compared with a column: exactly, or as the nearest float of its width."""
    if column == "f64":
        return float(text)
    with np.errstate(over="ignore"):
        return float(np.float32(float(text))) if column == "f32" else Decimal(text)


def literals(column: str) -> st.SearchStrategy[tuple[str, Any]]:
    """A literal's text, and the value that it is compared as."""
    if column in NUMERIC:
        return st.sampled_from(EDGES).map(lambda text: (text, read_number(text, column)))
    if column == "day":
        return st.sampled_from(DAYS).map(lambda day: (f"'{day}'", day))
    if column == "yes":
        return st.booleans().map(lambda value: (str(value).lower(), value))
    return st.sampled_from(WORDS).map(lambda word: ("'" + word.replace("'", "''") + "'", word))


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Test]:
    column, sign = draw(st.sampled_from(sorted(VALUES))), draw(st.sampled_from(sorted(_OPERATORS)))
    shown, value = draw(literals(column))
    if draw(st.booleans()):
        return f"{column} {sign} {shown}", lambda row: compared(sign, row[column], value)
    return f"{shown} {sign} {column}", lambda row: compared(sign, value, row[column])


@st.composite
def column_pairs(draw: st.DrawFn) -> tuple[str, Test]:
    left, right = draw(st.sampled_from(NUMERIC)), draw(st.sampled_from(NUMERIC))
    sign = draw(st.sampled_from(sorted(_OPERATORS)))
    exact = left == right or {left, right} <= {"i8", "u64", "i64"}

    def test(row: Row) -> bool | None:
        sides = [row[left], row[right]]
        if not exact:
            sides = [None if side is None else float(side) for side in sides]
        return compared(sign, *sides)

    return f"{left} {sign} {right}", test


@st.composite
def memberships(draw: st.DrawFn) -> tuple[str, Test]:
    column = draw(st.sampled_from(sorted(VALUES)))
    members = draw(st.lists(literals(column), min_size=1, max_size=4))
    shown = ", ".join(text for text, _ in members)

    def test(row: Row) -> bool | None:
        return joined([compared("=", row[column], value) for _, value in members], True)

    if draw(st.booleans()):
        return f"{column} in ({shown})", test
    return f"{column} not in ({shown})", lambda row: negated(test(row))


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, Test]:
    column = draw(st.sampled_from(sorted(VALUES)))
    (low, least), (high, most) = draw(literals(column)), draw(literals(column))

    def test(row: Row) -> bool | None:
        value = row[column]
        return joined([compared(">=", value, least), compared("<=", value, most)], False)

    if draw(st.booleans()):
        return f"{column} between {low} and {high}", test
    return f"{column} not between {low} and {high}", lambda row: negated(test(row))


@st.composite
def plain_words(draw: st.DrawFn) -> tuple[str, Test]:
    """Null, truth and likeness."""
    kind = draw(st.sampled_from(["is null", "is not null", "like", "not like", "truth"]))
    if kind == "truth":
        return "yes", lambda row: row["yes"]
    if kind.endswith("null"):
        column, wanted = draw(st.sampled_from(sorted(VALUES))), kind == "is null"
        return f"{column} {kind}", lambda row: (row[column] is None) == wanted
    column, start = draw(st.sampled_from(["text", "kind"])), draw(st.sampled_from(["a", "b", "i"]))

    def test(row: Row) -> bool | None:
        return None if row[column] is None else row[column].startswith(start)

    return f"{column} {kind} '{start}%'", test if kind == "like" else lambda row: negated(test(row))


@st.composite
def _combined(draw: st.DrawFn, inner: st.SearchStrategy[tuple[str, Test]]) -> tuple[str, Test]:
    word = draw(st.sampled_from(["and", "OR", "not"]))
    left, left_test = draw(inner)
    if word == "not":
        return f"not ({left})", lambda row: negated(left_test(row))
    right, right_test = draw(inner)
    return f"({left}) {word} ({right})", lambda row: joined([left_test(row), right_test(row)], word == "OR")


def conditions() -> st.SearchStrategy[tuple[str, Test]]:
    """The text of a filter, and what SQL says of a row."""
    simple = comparisons() | comparisons() | column_pairs() | memberships() | ranges() | plain_words()
    return st.recursive(simple, _combined, max_leaves=5)
