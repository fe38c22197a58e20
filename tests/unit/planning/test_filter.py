"""The filter's language against SQL's three-valued logic, evaluated naively."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.errors import ContractError
from batchonnx.planning.filter import parse_filter

SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("day", pa.date32()),
        ("a b", pa.int8()),
        ("d", pa.decimal128(10, 2)),
        ("k", pa.dictionary(pa.int8(), pa.string())),
    ]
)
Row = dict[str, Any]
Test = Callable[[Row], bool | None]


def passing(text: str, rows: list[Row]) -> list[int]:
    table = pa.Table.from_pylist(rows, SCHEMA).append_column("#", pa.array(range(len(rows))))
    found = parse_filter(text, SCHEMA, "job.yaml:3")
    return list(table.filter(found.expression)["#"].to_pylist())


OPERATORS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">=": operator.ge}


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> tuple[str, Test]:
    """The text of a condition, and what SQL says of a row: true, false or unknown (None)."""
    kind = draw(
        st.sampled_from(["compare", "in", "null", "bool"] + (["and", "or", "not"] * 2 if depth else []))
    )
    if kind == "compare":
        sign, value = draw(st.sampled_from(sorted(OPERATORS))), draw(st.integers(-3, 3))
        return f"n {sign} {value}", lambda row: None if row["n"] is None else OPERATORS[sign](row["n"], value)
    if kind == "in":
        values = draw(st.lists(st.sampled_from(["x", "y", "it's"]), min_size=1, max_size=3))
        quoted = ", ".join("'" + v.replace("'", "''") + "'" for v in values)
        return f"s in ({quoted})", lambda row: None if row["s"] is None else row["s"] in values
    if kind == "null":
        return "f is null", lambda row: row["f"] is None
    if kind == "bool":
        return "b", lambda row: row["b"]
    left, left_test = draw(conditions(depth=depth - 1))
    if kind == "not":
        return f"not ({left})", lambda row: None if (v := left_test(row)) is None else not v
    right, right_test = draw(conditions(depth=depth - 1))
    decisive = kind == "or"

    def test(row: Row) -> bool | None:
        values = {left_test(row), right_test(row)}
        if decisive in values:
            return decisive
        return None if None in values else not decisive

    return f"({left}) {kind} ({right})", test


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(-3, 3),
            "f": st.none() | st.floats(-2, 2),
            "s": st.none() | st.sampled_from(["x", "y", "it's"]),
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=8,
)


@given(conditions(), ROWS)
def test_a_filter_keeps_the_rows_for_which_it_is_true(condition: tuple[str, Test], rows: list[Row]) -> None:
    text, test = condition
    assert passing(text, rows) == [i for i, row in enumerate(rows) if test(row) is True]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("n between 1 and 2 and s = 'x'", [1]),
        ("n not between 1 and 2", [0, 3]),
        ("s like 'x%' or s like '_y'", [0, 1, 2]),
        ("s not like 'x%'", [2]),
        ("day >= '2026-11-22'", [1]),
        ('"a b" = 1', [0]),
        ("`a b` > 1", [1]),
        ("N = 1", None),
        ("d > 1.5 or d = 1", [0, 1]),
        ("k = 'u'", [0]),
        ("1 <= n", [1, 2, 3]),
        ("f = n", [1]),
        ("NOT n = 1 AND S IS NOT NULL", None),
        ("not n = 1 and s is not null", [0, 2]),
        ("f > -1e3", [0, 1]),
        ("b = true", [1]),
        ("b or not b", [0, 1]),
    ],
)
def test_each_kind_of_condition(text: str, kept: list[int] | None) -> None:
    import datetime
    from decimal import Decimal

    rows: list[Row] = [
        {
            "n": 0,
            "f": 1.0,
            "s": "x1",
            "b": False,
            "day": datetime.date(2026, 11, 21),
            "a b": 1,
            "d": Decimal(1),
            "k": "u",
        },
        {
            "n": 1,
            "f": 1.0,
            "s": "x",
            "b": True,
            "day": datetime.date(2026, 11, 22),
            "a b": 2,
            "d": Decimal(2),
            "k": "v",
        },
        {"n": 2, "f": None, "s": "yy", "b": None},
        {"n": 3},
    ]
    if kept is None:
        with pytest.raises(ContractError, match="names no column"):
            passing(text, rows)
    else:
        assert passing(text, rows) == kept


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "can't be understood"),
        ("n >", "the end of the filter"),
        ("n > 1 andd b", "'andd'"),
        ("n @ 1", "'@'"),
        ("(n > 1", "the end of the filter"),
        ("nn > 1", 'did you mean "n"'),
        ("n = 'x'", "can't be compared with 'x'"),
        ("day > 'tomorrow'", "can't be compared"),
        ("s > 3", "can't be compared with 3"),
        ("n", "not true or false"),
        ("n = s", "can't be compared"),
        ("1 = 1", "names no column"),
        ("n like 'x'", "text column"),
        ("__import__('os')", "can't be understood"),
    ],
)
def test_what_is_wrong_with_a_filter_is_told_with_its_text(text: str, words: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_filter(text, SCHEMA, "job.yaml:3  input.filter")
    assert words in str(caught.value)
    assert caught.value.problems[0].facts["job"].startswith("job.yaml:3")


def test_the_columns_that_a_filter_reads_are_known() -> None:
    assert parse_filter('n > 1 and ("a b" = 2 or b)', SCHEMA, "").columns == {"n", "a b", "b"}
