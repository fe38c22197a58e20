"""The filter's language against SQL's three-valued logic, evaluated naively."""

from __future__ import annotations

import datetime
import pickle
import zoneinfo
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings

from batchonnx.errors import ContractError
from batchonnx.planning.filter import parse_filter
from tests import conditions as random_filters
from tests.conditions import ROWS, Row, Test, conditions

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


def passing(text: str, rows: list[Row], schema: pa.Schema = SCHEMA) -> list[int]:
    table = pa.Table.from_pylist(rows, schema).append_column("#", pa.array(range(len(rows)), pa.int64()))
    found = parse_filter(text, schema, "job.yaml:3")
    return list(table.filter(found.expression)["#"].to_pylist())


def passing_of(arrow_type: pa.DataType, values: list[Any], text: str) -> list[Any]:
    """The values that pass, of a column `c` of any type, whether or not Arrow can take from it."""
    table = pa.table({"c": pa.array(values, arrow_type)})
    found = parse_filter(text, table.schema, "")
    mask = ds.dataset(table).to_table(columns={"passes": found.expression})["passes"].to_pylist()
    return [value for value, passes in zip(values, mask, strict=True) if passes]


@settings(max_examples=500, deadline=None)
@given(conditions(), ROWS)
def test_a_filter_keeps_the_rows_for_which_it_is_true(condition: tuple[str, Test], rows: list[Row]) -> None:
    text, test = condition
    assert passing(text, rows, random_filters.SCHEMA) == [
        i for i, row in enumerate(rows) if test(row) is True
    ]


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


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def berlin(*when: int) -> datetime.datetime:
    return datetime.datetime(*when, tzinfo=BERLIN)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("arrow_type", "values", "text", "kept"),
    [
        (pa.string_view(), ["a", None, "b"], "c in ('b') or c like 'a%'", ["a", "b"]),
        (pa.large_string(), ["a", None, "b"], "c > 'a'", ["b"]),
        (pa.dictionary(pa.int8(), pa.int64()), [1, None, 2], "c > 1.5", [2]),
        (pa.float16(), [0.5, None, 2.0], "c >= 0.5 and c < 70000", [0.5, 2.0]),
        (pa.decimal64(5, 1), [Decimal("1.5"), None], "c > 1.49", [Decimal("1.5")]),
        (pa.decimal128(38, 0), [Decimal(2**53), Decimal(2**53 + 1)], f"c = {2**53 + 1}", [2**53 + 1]),
        (pa.decimal256(60, 2), [Decimal("1.10"), None], "c between '1.1' and 1.1", [Decimal("1.10")]),
        (pa.time32("s"), [datetime.time(1, 2, 3), None], "c = '01:02:03'", [datetime.time(1, 2, 3)]),
        (pa.time64("ns"), [datetime.time(1, 2), None], "c < '01:02:03.5'", [datetime.time(1, 2)]),
        (
            pa.timestamp("us"),
            [datetime.datetime(2026, 11, 22, 1), None],
            "c > '2026-11-22' and c < '2026-11-22T01:00:00.000001'",
            [datetime.datetime(2026, 11, 22, 1)],
        ),
        (
            pa.timestamp("ms", "Europe/Berlin"),
            [berlin(2026, 11, 22), berlin(2026, 11, 21, 23, 59), None],
            "c >= '2026-11-22' and c = '2026-11-21 23:00:00Z'",
            [berlin(2026, 11, 22)],
        ),
        (pa.list_(pa.int8()), [[1], None], "c is not null", [[1]]),
        (pa.null(), [None, None], "c is null", [None, None]),
    ],
)
def test_columns_of_other_types(
    arrow_type: pa.DataType, values: list[Any], text: str, kept: list[Any]
) -> None:
    assert passing_of(arrow_type, values, text) == kept


@pytest.mark.parametrize("name", ["order", "notes", "is_new", "android", "größe", "a.b", "nullable", "truth"])
def test_names_that_begin_like_a_word_of_the_language_need_no_quotes(name: str) -> None:
    schema = pa.schema([(name, pa.int64())])
    assert passing(f"not {name} = 1 and {name} is not null", [{name: 1}, {name: 2}, {}], schema) == [1]


@pytest.mark.parametrize("name", ["in", "a b", "1st", "f-1", "it's", "a`b", 'a"b'])
def test_every_name_can_be_quoted(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert passing(f"{quoted} = 1", [{name: 1}, {name: 2}], pa.schema([(name, pa.int64())])) == [0]


def test_a_list_of_many_thousand_values_is_looked_up() -> None:
    rows: list[Row] = [{"n": n} for n in (1, 50_001, None)]
    many = ", ".join(map(str, range(50_000)))
    assert passing(f"n in ({many})", rows) == [0]
    assert passing(f"n not in ({many})", rows) == [1]


def test_a_chain_of_thousands_of_conditions_is_evaluated() -> None:
    rows: list[Row] = [{"n": 3}, {"n": -3}, {"n": None}]
    assert passing(" or ".join(f"n = {n}" for n in range(5000)), rows) == [0]
    assert passing(" and ".join(f"n != {n}" for n in range(5000)), rows) == [1]


@pytest.mark.parametrize(
    ("text", "position", "found", "expected"),
    [
        ("n > 1 andd b", 6, "'andd'", "and, or, the end"),
        ("n >", 3, "the end of the filter", "a column, a value"),
        ("n in 1", 5, "'1'", "("),
        ("n is 1", 5, "'1'", "not, null"),
        ("s = 'abc", 4, "a quote that isn't closed", "a column, a value"),
        ("n = 1\nand\n n @ 2", 13, "'@'", "a comparison"),
    ],
)
def test_a_caret_points_at_what_is_not_understood(
    text: str, position: int, found: str, expected: str
) -> None:
    with pytest.raises(ContractError) as caught:
        parse_filter(text, SCHEMA, "job.yaml:3")
    facts = caught.value.problems[0].facts
    assert facts[""] == " " * position + "^"
    assert len(facts["filter"].splitlines()) == 1
    assert facts["found"] == found
    assert expected in facts["expected"]


@pytest.mark.parametrize(
    ("arrow_type", "literal", "example"),
    [
        (pa.date32(), "'22.11.2026'", "'2026-11-22'"),
        (pa.date32(), "20261122", "'2026-11-22'"),
        (pa.time32("s"), "'01:02:03.5'", "'13:45:00'"),
        (pa.timestamp("us"), "'2026-11-22T01:00:00Z'", "'2026-11-22 13:45:00'"),
        (pa.timestamp("us", "UTC"), "5", "+01:00"),
        (pa.string(), "5", "single quotes"),
        (pa.bool_(), "1", "true or false"),
        (pa.decimal128(5, 2), "'a lot'", "column's type"),
        (pa.decimal128(5, 2), "'NaN'", "column's type"),
        (pa.int64(), "'1'", "column's type"),
        (pa.duration("s"), "'1'", "column's type"),
        (pa.binary(), "'a'", "column's type"),
        (pa.list_(pa.int8()), "1", "column's type"),
    ],
)
@pytest.mark.parametrize("text", ["c = {}", "{} < c", "c in ({})", "c between {} and {}"])
def test_a_literal_that_does_not_suit_is_told_with_the_columns_type_and_an_example(
    arrow_type: pa.DataType, literal: str, example: str, text: str
) -> None:
    with pytest.raises(ContractError) as caught:
        parse_filter(text.replace("{}", literal), pa.schema([("c", arrow_type)]), "job.yaml:3")
    (problem,) = caught.value.problems
    assert problem.title == f'column "c" is {arrow_type}, it can\'t be compared with {literal}'
    assert example in problem.fix


def test_null_is_asked_for_with_is() -> None:
    with pytest.raises(ContractError, match="column is null"):
        parse_filter("n = null", SCHEMA, "")


def test_columns_of_different_kinds_cannot_be_compared() -> None:
    for text in ("n = s", "day > s", "b = n"):
        with pytest.raises(ContractError, match="compare columns of one type"):
            parse_filter(text, SCHEMA, "")


def test_a_filter_survives_a_trip_to_another_process() -> None:
    found = parse_filter("n in (1, 2) and not f > 1", SCHEMA, "")
    again = pickle.loads(pickle.dumps(found))
    assert (again.text, again.columns) == (found.text, found.columns)
    assert again.expression.equals(found.expression)
    assert again.pruning.equals(found.pruning)


@pytest.mark.parametrize("text", ["(" * 3000 + "a > 1" + ")" * 3000, "not " * 3000 + "a > 1"])
def test_a_filter_without_a_bottom_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="nested too deeply"):
        parse_filter(text, pa.schema([("a", pa.int64())]), "job.yaml:1")
