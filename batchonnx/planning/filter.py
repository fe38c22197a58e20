"""The filter: one readable expression language, as in SQL's WHERE, parsed to an Arrow expression."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.condition import (
    Column,
    Condition,
    all_of,
    any_of,
    compare_columns,
    compare_flipped,
    compare_value,
    is_member,
    is_null,
    is_true,
    matches,
)
from batchonnx.planning.literal import LiteralError, Value
from batchonnx.planning.types import is_text

GRAMMAR = r"""
    ?start: either
    ?either: both (_OR both)*                              -> either
    ?both: negation (_AND negation)*                       -> both
    ?negation: _NOT negation                               -> negate
             | predicate
    ?predicate: operand COMPARISON operand                 -> compare
              | operand _IN "(" literal ("," literal)* ")" -> is_in
              | operand _NOT _IN "(" literal ("," literal)* ")" -> not_in
              | operand _IS _NULL                          -> is_null
              | operand _IS _NOT _NULL                     -> is_not_null
              | operand _BETWEEN operand _AND operand      -> between
              | operand _NOT _BETWEEN operand _AND operand -> not_between
              | operand _LIKE TEXT                         -> like
              | operand _NOT _LIKE TEXT                    -> not_like
              | "(" either ")"
              | column                                     -> truth
    ?operand: column | literal
    column: NAME                                           -> plain_name
          | QUOTED                                         -> quoted_name
    literal: NUMBER                                        -> number
           | TEXT                                          -> text
           | _TRUE                                         -> true
           | _FALSE                                        -> false

    COMPARISON: "==" | "!=" | "<>" | "<=" | ">=" | "=" | "<" | ">"
    _OR.2: /or\b/i
    _AND.2: /and\b/i
    _NOT.2: /not\b/i
    _IN.2: /in\b/i
    _IS.2: /is\b/i
    _NULL.2: /null\b/i
    _BETWEEN.2: /between\b/i
    _LIKE.2: /like\b/i
    _TRUE.2: /true\b/i
    _FALSE.2: /false\b/i
    NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
    TEXT: /'([^']|'')*'/
    QUOTED: /"([^"]|"")+"/ | /`[^`]+`/
    NAME: /[^\W\d]\w*(\.[^\W\d]\w*)*/
    %ignore /\s+/
"""


@dataclass(frozen=True)
class Filter:
    """A parsed filter.

    text: as the user wrote it. expression: true for the rows to score. pruning: may be held against
    statistics and partitions; where it can't be true, `expression` isn't. columns: what it reads.
    """

    text: str
    expression: pc.Expression
    pruning: pc.Expression
    columns: frozenset[str]


@dataclass(frozen=True)
class _Literal:
    """value: its meaning. shown: as it was written."""

    value: Value
    shown: str


_Operand = Column | _Literal


def parse_filter(text: str, schema: pa.Schema, where: str) -> Filter:
    """Parse `amount > 0 and country in ('DE', 'FR')` against the input's columns.

    Comparisons (= == != <> < <= > >=), and, or, not, in, between, like ('%' any, '_' one
    character), is null, true and false; 'text' in single quotes, column names that aren't plain
    words in double quotes or backticks; 'text' beside a date, time or timestamp column is read as
    one, in the column's time zone unless it brings an offset. Numbers are compared exactly, beside
    a float column as the nearest float of its width. As in SQL a comparison with null is neither
    true nor false, and the row is left out; NaN, as in IEEE 754, differs from every number.
    where: the place in the job file. Raises ContractError.
    """
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise ContractError(_syntax(text, error, where)) from error
    builder = _Builder(schema, where, text)
    try:
        condition: Condition = builder.transform(tree)
    except RecursionError as error:
        facts = {"job": where, "found": f"{text[:60]}…"}
        fix = "take parentheses and nots out that mean nothing"
        raise ContractError(Problem("the filter is nested too deeply", facts, fix)) from error
    except VisitError as error:
        if isinstance(error.orig_exc, ContractError):
            raise error.orig_exc from None
        raise
    return Filter(text, condition.exact, condition.maybe, frozenset(builder.columns))


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr")


class _Builder(Transformer[Token, Any]):
    """From the grammar's tree to a condition; method names are the grammar's."""

    def __init__(self, schema: pa.Schema, where: str, text: str) -> None:
        super().__init__()
        self._schema, self._where, self._text = schema, where, text
        self.columns: set[str] = set()

    def either(self, parts: list[Condition]) -> Condition:
        return any_of(parts)

    def both(self, parts: list[Condition]) -> Condition:
        return all_of(parts)

    def negate(self, parts: list[Condition]) -> Condition:
        return parts[0].negated()

    def number(self, parts: list[Token]) -> _Literal:
        try:
            return _Literal(Decimal(str(parts[0])), str(parts[0]))
        except InvalidOperation:
            raise self._error(f"{parts[0]} is beyond every number", "write a smaller number") from None

    def text(self, parts: list[Token]) -> _Literal:
        return _Literal(_unquote(parts[0]), str(parts[0]))

    def true(self, _: list[Token]) -> _Literal:
        return _Literal(True, "true")

    def false(self, _: list[Token]) -> _Literal:
        return _Literal(False, "false")

    def plain_name(self, parts: list[Token]) -> Column:
        return self._column(str(parts[0]))

    def quoted_name(self, parts: list[Token]) -> Column:
        return self._column(_unquote(parts[0]))

    def truth(self, parts: list[Column]) -> Condition:
        if not pat.is_boolean(parts[0].plain):
            title = f'column "{parts[0].name}" is {parts[0].type}, not true or false'
            raise self._error(title, "compare it with something")
        return is_true(parts[0])

    def compare(self, parts: list[Any]) -> Condition:
        left, sign, right = parts
        return self._compare(left, str(sign), right)

    def is_in(self, parts: list[Any]) -> Condition:
        column, *literals = parts
        if not isinstance(column, Column):
            raise self._error("in needs a column on its left", "write: column in (…)")
        for literal in literals:
            self._compare(column, "=", literal)  # names the literal that doesn't suit
        return is_member(column, [literal.value for literal in literals])

    def not_in(self, parts: list[Any]) -> Condition:
        return self.is_in(parts).negated()

    def is_null(self, parts: list[_Operand]) -> Condition:
        if isinstance(parts[0], _Literal):
            raise self._error("only a column can be null", "name a column")
        return is_null(parts[0])

    def is_not_null(self, parts: list[_Operand]) -> Condition:
        return self.is_null(parts).negated()

    def between(self, parts: list[_Operand]) -> Condition:
        value, low, high = parts
        return all_of([self._compare(value, ">=", low), self._compare(value, "<=", high)])

    def not_between(self, parts: list[_Operand]) -> Condition:
        return self.between(parts).negated()

    def like(self, parts: list[Any]) -> Condition:
        column, pattern = parts
        if not isinstance(column, Column) or not is_text(column.plain):
            raise self._error("like needs a text column on its left", "compare other columns with = or <")
        return matches(column, _unquote(pattern))

    def not_like(self, parts: list[Any]) -> Condition:
        return self.like(parts).negated()

    def _column(self, name: str) -> Column:
        if name not in self._schema.names:
            near = get_close_matches(name, self._schema.names, 1)
            shown = ", ".join(self._schema.names[:12]) + (" …" if len(self._schema.names) > 12 else "")
            fix = f'did you mean "{near[0]}"?' if near else f"name a column of the input: {shown}"
            if name.lower() == "null":
                fix = "ask for missing values with: column is null"
            raise self._error(f'the filter names no column of the input: "{name}"', fix)
        self.columns.add(name)
        return Column(name, self._schema.field(name).type)

    def _compare(self, left: _Operand, sign: str, right: _Operand) -> Condition:
        try:
            if isinstance(left, Column):
                if isinstance(right, Column):
                    return compare_columns(left, sign, right)
                return compare_value(left, sign, right.value)
            if isinstance(right, Column):
                return compare_flipped(left.value, sign, right)
        except LiteralError as error:
            raise self._unsuited(left, right) from error
        raise self._error("a comparison names no column", "compare a column with a value")

    def _unsuited(self, left: _Operand, right: _Operand) -> ContractError:
        if isinstance(left, Column) and isinstance(right, Column):
            title = f'"{left.name}" is {left.type} and "{right.name}" {right.type}: they can\'t be compared'
            return self._error(title, "compare columns of one type")
        column, literal = (left, right) if isinstance(left, Column) else (right, left)
        assert isinstance(column, Column)
        assert isinstance(literal, _Literal)
        title = f'column "{column.name}" is {column.type}, it can\'t be compared with {literal.shown}'
        return self._error(title, f"give a value of the column's type{_example(column.plain)}")

    def _error(self, title: str, fix: str) -> ContractError:
        return ContractError(Problem(title, {"job": self._where, "filter": self._text}, fix))


def _example(plain: pa.DataType) -> str:
    if pat.is_date(plain):
        return ": '2026-11-22'"
    if pat.is_timestamp(plain):
        return ": '2026-11-22 13:45:00" + ("' or '2026-11-22 13:45:00+01:00'" if plain.tz else "'")
    if pat.is_time(plain):
        return ": '13:45:00'"
    if is_text(plain):
        return ": 'text' in single quotes"
    return ": true or false" if pat.is_boolean(plain) else ""


def _unquote(token: str) -> str:
    return token[1:-1].replace(token[0] * 2, token[0])


_WORDS = {
    "NAME": "a column",
    "QUOTED": "a column",
    "NUMBER": "a value",
    "TEXT": "a value",
    "_TRUE": "a value",
    "_FALSE": "a value",
    "COMPARISON": "a comparison (= != < <= > >=)",
    "_IN": "in",
    "_IS": "is",
    "_BETWEEN": "between",
    "_LIKE": "like",
    "_NOT": "not",
    "_NULL": "null",
    "_AND": "and",
    "_OR": "or",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "$END": "the end",
}


def _syntax(text: str, error: UnexpectedInput, where: str) -> Problem:
    position = len(text)
    if isinstance(error, UnexpectedCharacters):
        position = error.pos_in_stream or 0
        character = text[position]
        found = "a quote that isn't closed" if character in "'\"`" else repr(character)
        allowed = error.allowed
    else:
        assert isinstance(error, UnexpectedToken)
        found, allowed = "the end of the filter", error.accepts or error.expected
        if error.token.type != "$END":
            position, found = error.token.start_pos or 0, repr(str(error.token))
    words = dict.fromkeys(_WORDS[name] for name in _WORDS if name in (allowed or ()))
    shown = " ".join(text.splitlines()) if len(text.splitlines()) > 1 else text
    facts = {"job": where, "filter": shown, "": " " * position + "^", "found": found}
    if words:
        facts["expected"] = ", ".join(words)
    fix = "write it as in SQL's WHERE: amount > 0 and country in ('DE', 'FR')"
    return Problem("the filter can't be understood", facts, fix)
