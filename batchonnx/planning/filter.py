"""The filter: one readable expression language, as in SQL's WHERE, parsed to an Arrow expression."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from batchonnx.errors import ContractError, Problem

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
    """A parsed filter. text: as the user wrote it. columns: the columns it reads."""

    text: str
    expression: pc.Expression
    columns: frozenset[str]


@dataclass(frozen=True)
class _Column:
    name: str
    type: pa.DataType


@dataclass(frozen=True)
class _Literal:
    value: Any


def parse_filter(text: str, schema: pa.Schema, where: str) -> Filter:
    """Parse `amount > 0 and country in ('DE', 'FR')` against the input's columns.

    Comparisons (= == != <> < <= > >=), and, or, not, in, between, like ('%' any, '_' one
    character), is null, true and false; 'text' in single quotes, column names that aren't plain
    words in double quotes or backticks; 'text' beside a date or timestamp column is read as one.
    As in SQL a comparison with null is neither true nor false, and the row is left out.
    where: the place in the job file. Raises ContractError.
    """
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise ContractError(_syntax(text, error, where)) from error
    builder = _Builder(schema, where, text)
    try:
        expression = builder.transform(tree)
    except VisitError as error:
        if isinstance(error.orig_exc, ContractError):
            raise error.orig_exc from None
        raise
    return Filter(text, expression, frozenset(builder.columns))


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr")


class _Builder(Transformer[Token, Any]):
    """From the grammar's tree to an Arrow expression; method names are the grammar's."""

    def __init__(self, schema: pa.Schema, where: str, text: str) -> None:
        super().__init__()
        self._schema, self._where, self._text = schema, where, text
        self.columns: set[str] = set()

    def either(self, parts: list[pc.Expression]) -> pc.Expression:
        return reduce(lambda a, b: a | b, parts)

    def both(self, parts: list[pc.Expression]) -> pc.Expression:
        return reduce(lambda a, b: a & b, parts)

    def negate(self, parts: list[pc.Expression]) -> pc.Expression:
        return ~parts[0]

    def number(self, parts: list[Token]) -> _Literal:
        text = str(parts[0])
        return _Literal(float(text) if any(mark in text for mark in ".eE") else int(text))

    def text(self, parts: list[Token]) -> _Literal:
        return _Literal(_unquote(parts[0]))

    def true(self, _: list[Token]) -> _Literal:
        return _Literal(True)

    def false(self, _: list[Token]) -> _Literal:
        return _Literal(False)

    def plain_name(self, parts: list[Token]) -> _Column:
        return self._column(str(parts[0]))

    def quoted_name(self, parts: list[Token]) -> _Column:
        return self._column(_unquote(parts[0]))

    def truth(self, parts: list[_Column]) -> pc.Expression:
        if not pat.is_boolean(parts[0].type):
            raise self._error(
                f'column "{parts[0].name}" is {parts[0].type}, not true or false', "compare it with something"
            )
        return pc.field(parts[0].name)

    def compare(self, parts: list[Any]) -> pc.Expression:
        left, sign, right = parts
        a, b = self._pair(left, right)
        return _COMPARE[str(sign)](a, b)

    def is_in(self, parts: list[Any]) -> pc.Expression:
        column, *literals = parts
        if not isinstance(column, _Column):
            raise self._error("in needs a column on its left", "write: column in (…)")
        # Equalities, not isin(): they keep null unknown under `not`, and statistics prune by them.
        return self.either([self.compare([column, "=", literal]) for literal in literals])

    def not_in(self, parts: list[Any]) -> pc.Expression:
        return ~self.is_in(parts)

    def is_null(self, parts: list[Any]) -> pc.Expression:
        return self._field(parts[0]).is_null()

    def is_not_null(self, parts: list[Any]) -> pc.Expression:
        return self._field(parts[0]).is_valid()

    def between(self, parts: list[Any]) -> pc.Expression:
        value, low, high = parts
        return self.compare([value, ">=", low]) & self.compare([value, "<=", high])

    def not_between(self, parts: list[Any]) -> pc.Expression:
        return ~self.between(parts)

    def like(self, parts: list[Any]) -> pc.Expression:
        column, pattern = parts
        if not isinstance(column, _Column) or not _is_text(column.type):
            raise self._error("like needs a text column on its left", "compare other columns with = or <")
        return pc.match_like(pc.field(column.name), _unquote(pattern))

    def not_like(self, parts: list[Any]) -> pc.Expression:
        return ~self.like(parts)

    def _column(self, name: str) -> _Column:
        if name not in self._schema.names:
            near = get_close_matches(name, self._schema.names, 1)
            shown = ", ".join(self._schema.names[:12]) + (" …" if len(self._schema.names) > 12 else "")
            fix = f'did you mean "{near[0]}"?' if near else f"name a column of the input: {shown}"
            raise self._error(f'the filter names no column of the input: "{name}"', fix)
        self.columns.add(name)
        return _Column(name, self._schema.field(name).type)

    def _field(self, operand: _Column | _Literal) -> pc.Expression:
        if isinstance(operand, _Literal):
            raise self._error("only a column can be null", "name a column")
        return pc.field(operand.name)

    def _pair(self, left: _Column | _Literal, right: _Column | _Literal) -> tuple[Any, Any]:
        if isinstance(left, _Column) and isinstance(right, _Column):
            if left.type != right.type and not (_is_numeric(left.type) and _is_numeric(right.type)):
                title = (
                    f'"{left.name}" is {left.type} and "{right.name}" {right.type}: they can\'t be compared'
                )
                raise self._error(title, "compare columns of one type")
            return pc.field(left.name), pc.field(right.name)
        if isinstance(left, _Column):
            assert isinstance(right, _Literal)
            return _comparable(left), pc.scalar(self._scalar(right, left))
        if isinstance(right, _Column):
            return pc.scalar(self._scalar(left, right)), _comparable(right)
        raise self._error("a comparison names no column", "compare a column with a value")

    def _scalar(self, literal: _Literal, column: _Column) -> pa.Scalar:
        """The literal as the column's type, or as a float beside an integer column."""
        value, target = literal.value, column.type
        if pat.is_dictionary(target):
            target = target.value_type
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        suits = (
            (is_number and (_is_numeric(target)))
            or (isinstance(value, bool) and pat.is_boolean(target))
            or (isinstance(value, str) and (_is_text(target) or pat.is_temporal(target)))
        )
        try:
            if not suits:
                raise pa.ArrowInvalid("of another type")
            if pat.is_decimal(target) or (isinstance(value, float) and pat.is_integer(target)):
                return pa.scalar(float(value))
            return pa.scalar(value).cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            title = f'column "{column.name}" is {column.type}, it can\'t be compared with {value!r}'
            fix = "give a value of the column's type; dates as '2026-11-22', text in single quotes"
            raise self._error(title, fix) from error

    def _error(self, title: str, fix: str) -> ContractError:
        return ContractError(Problem(title, {"job": self._where, "filter": self._text}, fix))


_COMPARE = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _comparable(column: _Column) -> pc.Expression:
    """A decimal is compared as a float: a literal may have digits that the column's type has not."""
    field = pc.field(column.name)
    return field.cast(pa.float64()) if pat.is_decimal(column.type) else field


def _unquote(token: str) -> str:
    return token[1:-1].replace(token[0] * 2, token[0])


def _is_text(arrow_type: pa.DataType) -> bool:
    if pat.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(
        pat.is_string(arrow_type) or pat.is_large_string(arrow_type) or pat.is_string_view(arrow_type)
    )


def _is_numeric(arrow_type: pa.DataType) -> bool:
    return bool(pat.is_integer(arrow_type) or pat.is_floating(arrow_type) or pat.is_decimal(arrow_type))


def _syntax(text: str, error: UnexpectedInput, where: str) -> Problem:
    position = (
        error.pos_in_stream if error.pos_in_stream is not None and error.pos_in_stream >= 0 else len(text)
    )
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        position, found = len(text), "the end of the filter"
    elif isinstance(error, UnexpectedCharacters):
        found = repr(text[position])
    else:
        found = repr(str(getattr(error, "token", text[position : position + 1])))
    facts = {"job": where, "filter": text, "": " " * position + "^", "found": found}
    fix = "write it as in SQL's WHERE: amount > 0 and country in ('DE', 'FR')"
    return Problem("the filter can't be understood", facts, fix)
