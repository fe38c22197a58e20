"""What a filter says of a row: true, false or, as in SQL beside a null, unknown."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.planning.literal import (
    LiteralError,
    Value,
    is_discrete,
    is_numeric,
    limits,
    plain_type,
    to_number,
    to_scalar,
)
from batchonnx.planning.types import is_text

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SPELLINGS = {"==": "=", "<>": "!="}
_DIGITS = 100
"""More than any decimal column has."""

EVERY, NONE = pc.scalar(True), pc.scalar(False)
_UNKNOWN = pc.scalar(pa.scalar(None, pa.bool_()))


@dataclass(frozen=True)
class Condition:
    """An expression for rows, and two for row groups.

    exact: true, false or null for each row.
    maybe: true wherever `exact` is true. maybe_not: true wherever `exact` is false. Only these may be
        held against minimum and maximum, which leave NaN out: in a row group that goes up to 3,
        `not x < 5` is true of a NaN.
    """

    exact: pc.Expression
    maybe: pc.Expression
    maybe_not: pc.Expression

    def negated(self) -> Condition:
        """Not this one; unknown stays unknown."""
        return Condition(~self.exact, self.maybe_not, self.maybe)


@dataclass(frozen=True)
class Column:
    """A column of the input."""

    name: str
    type: pa.DataType

    @property
    def plain(self) -> pa.DataType:
        """The type that its values are compared in."""
        return plain_type(self.type)

    @property
    def values(self) -> pc.Expression:
        """Its values, of the plain type."""
        field = pc.field(self.name)
        return field if self.plain == self.type else field.cast(self.plain)


def all_of(conditions: Sequence[Condition]) -> Condition:
    """And."""
    return Condition(
        _fold(operator.and_, [c.exact for c in conditions]),
        _fold(operator.and_, [c.maybe for c in conditions]),
        _fold(operator.or_, [c.maybe_not for c in conditions]),
    )


def any_of(conditions: Sequence[Condition]) -> Condition:
    """Or."""
    return Condition(
        _fold(operator.or_, [c.exact for c in conditions]),
        _fold(operator.or_, [c.maybe for c in conditions]),
        _fold(operator.and_, [c.maybe_not for c in conditions]),
    )


def is_true(column: Column) -> Condition:
    """A boolean column by itself."""
    return _known(column.values)


def is_null(column: Column) -> Condition:
    """Whether the value is missing; never unknown."""
    field = pc.field(column.name)
    return Condition(field.is_null(), field.is_null(), field.is_valid())


def matches(column: Column, pattern: str) -> Condition:
    """SQL's like, for a text column."""
    return _known(pc.match_like(column.values, pattern))


def compare_value(column: Column, sign: str, value: Value) -> Condition:
    """Column beside value, exactly: an int8 is less than 300, and more than 0.5 from 1 on.

    A float column is compared with the nearest float of its width: a float32 may equal 0.1.
    Raises LiteralError for a value that means nothing beside the column's type.
    """
    sign = _SPELLINGS.get(sign, sign)
    if is_discrete(column.plain):
        return _compare_discrete(column, sign, to_number(value, column.plain))
    scalar = pc.scalar(to_scalar(value, column.type))
    return _compared(column.values, sign, scalar, pat.is_floating(column.plain))


def compare_flipped(value: Value, sign: str, column: Column) -> Condition:
    """Value beside column."""
    return compare_value(column, _MIRRORED[_SPELLINGS.get(sign, sign)], value)


def compare_columns(left: Column, sign: str, right: Column) -> Condition:
    """Column beside column; numbers of two kinds as float64 (but integers as integers).

    Raises LiteralError if their types can't be compared.
    """
    common = _common_type(left.plain, right.plain)
    sides = [
        side.values if side.plain == common else side.values.cast(common, False) for side in (left, right)
    ]
    return _compared(sides[0], _SPELLINGS.get(sign, sign), sides[1], pat.is_floating(common))


def is_member(column: Column, values: Sequence[Value]) -> Condition:
    """SQL's in: looked up, so that thousands of values cost no more than one."""
    scalars = [scalar for value in values if (scalar := _member(column, value)) is not None]
    # Looking up tells the two zeros apart, comparing doesn't.
    if pat.is_floating(column.plain):
        scalars += [pa.scalar(-0.0, column.plain) for scalar in scalars if scalar.as_py() == 0]
    if not scalars:
        return _never(column)
    found = column.values.isin(pa.array(scalars, column.plain))
    exact = pc.if_else(pc.field(column.name).is_valid(), found, _UNKNOWN)
    return Condition(exact, found, EVERY if pat.is_floating(column.plain) else ~found)


def _member(column: Column, value: Value) -> pa.Scalar | None:
    """The value in the column's type; None if no row can have it."""
    if not is_discrete(column.plain):
        return to_scalar(value, column.type)
    number = to_number(value, column.plain)
    low, high = limits(column.plain)
    if not low <= number <= high or _round(number, column, ROUND_FLOOR) != number:
        return None
    return _discrete_scalar(number, column)


def _compare_discrete(column: Column, sign: str, value: Decimal) -> Condition:
    """Integers and decimals: the value is brought to the next one that the column could have."""
    low, high = limits(column.plain)
    if value > high:
        return _always(column) if sign in ("<", "<=", "!=") else _never(column)
    if value < low:
        return _always(column) if sign in (">", ">=", "!=") else _never(column)
    bound = _round(value, column, ROUND_CEILING if sign in ("<", ">=") else ROUND_FLOOR)
    if bound != value and sign in ("=", "!="):
        return _always(column) if sign == "!=" else _never(column)
    return _compared(column.values, sign, pc.scalar(_discrete_scalar(bound, column)), False)


def _round(value: Decimal, column: Column, rounding: str) -> Decimal:
    scale = column.plain.scale if pat.is_decimal(column.plain) else 0
    with localcontext() as context:
        context.prec = _DIGITS
        return value.quantize(Decimal((0, (1,), -scale)), rounding)


def _discrete_scalar(value: Decimal, column: Column) -> pa.Scalar:
    return pa.scalar(value if pat.is_decimal(column.plain) else int(value), column.plain)


def _compared(left: pc.Expression, sign: str, right: pc.Expression, is_float: bool) -> Condition:
    exact = _OPERATORS[sign](left, right)
    if not is_float:
        return _known(exact)
    # Beside NaN `!=` is true and all else is false, whatever the statistics say of the others.
    if sign == "!=":
        return Condition(exact, EVERY, left == right)
    return Condition(exact, exact, EVERY)


def _known(exact: pc.Expression) -> Condition:
    """Of values without NaN."""
    return Condition(exact, exact, ~exact)


def _always(column: Column) -> Condition:
    valid = pc.field(column.name).is_valid()
    return Condition(pc.if_else(valid, EVERY, _UNKNOWN), valid, NONE)


def _never(column: Column) -> Condition:
    return _always(column).negated()


def _common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if left == right:
        return left
    if is_text(left) and is_text(right):
        return pa.large_string()
    if not (is_numeric(left) and is_numeric(right)):
        raise LiteralError("of two kinds")
    if pat.is_integer(left) and pat.is_integer(right):
        return pa.decimal128(20, 0) if pa.uint64() in (left, right) else pa.int64()
    return pa.float64()


def _fold(join: Callable[[Any, Any], Any], parts: Sequence[pc.Expression]) -> pc.Expression:
    """A balanced tree: Arrow walks expressions by recursion, and thousands deep would crash."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return join(_fold(join, parts[:middle]), _fold(join, parts[middle:]))
