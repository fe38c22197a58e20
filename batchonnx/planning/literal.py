"""A filter's literals as values of a column's type."""

from __future__ import annotations

from datetime import time
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.planning.types import is_text

Value = bool | str | Decimal
"""A literal as the grammar knows it; numbers with all their digits."""


class LiteralError(Exception):
    """A literal, or another column, that means nothing beside the column's type."""


def plain_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type that values are compared in: for some layouts Arrow has no comparisons."""
    if pat.is_dictionary(arrow_type):
        return plain_type(arrow_type.value_type)
    if pat.is_string_view(arrow_type):
        return pa.large_string()
    if pat.is_float16(arrow_type):
        return pa.float32()
    if pat.is_decimal32(arrow_type) or pat.is_decimal64(arrow_type):
        return pa.decimal128(arrow_type.precision, arrow_type.scale)
    return arrow_type


def is_numeric(plain: pa.DataType) -> bool:
    """An integer, a float or a decimal."""
    return bool(is_discrete(plain) or pat.is_floating(plain))


def is_discrete(plain: pa.DataType) -> bool:
    """Whether there is a next value: an integer or a decimal."""
    return bool(pat.is_integer(plain) or pat.is_decimal(plain))


def limits(plain: pa.DataType) -> tuple[Decimal, Decimal]:
    """The least and the greatest value of an integer or decimal type."""
    if pat.is_decimal(plain):
        high = Decimal((0, (9,) * plain.precision, -plain.scale))
        return high.copy_negate(), high
    if pat.is_unsigned_integer(plain):
        return Decimal(0), Decimal(2**plain.bit_width - 1)
    return Decimal(-(2 ** (plain.bit_width - 1))), Decimal(2 ** (plain.bit_width - 1) - 1)


def to_number(value: Value, plain: pa.DataType) -> Decimal:
    """The literal beside an integer, or, in quotes too, beside a decimal. Raises LiteralError."""
    if isinstance(value, str) and pat.is_decimal(plain):
        try:
            value = Decimal(value)
        except InvalidOperation as error:
            raise LiteralError("not a number") from error
    if not isinstance(value, Decimal) or not value.is_finite():
        raise LiteralError("of another kind")
    return value


def to_scalar(value: Value, arrow_type: pa.DataType) -> pa.Scalar:
    """The literal in the plain type of a column that isn't discrete. Raises LiteralError."""
    plain = plain_type(arrow_type)
    try:
        if isinstance(value, bool) and pat.is_boolean(plain):
            return pa.scalar(value)
        if isinstance(value, Decimal) and pat.is_floating(plain):
            return _nearest_float(value, arrow_type)
        if isinstance(value, str) and is_text(plain):
            return pa.scalar(value, plain)
        if isinstance(value, str) and pat.is_temporal(plain):
            return _moment(value, plain)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise LiteralError(str(error)) from error
    raise LiteralError("of another kind")


def _nearest_float(value: Decimal, arrow_type: pa.DataType) -> pa.Scalar:
    inner = arrow_type.value_type if pat.is_dictionary(arrow_type) else arrow_type
    with np.errstate(over="ignore"):
        nearest = inner.to_pandas_dtype()(float(value))
    return pa.scalar(float(nearest), plain_type(inner))


def _moment(text: str, plain: pa.DataType) -> pa.Scalar:
    """A date, a time, or a timestamp; one without an offset is in the column's own time zone."""
    if pat.is_time(plain):
        moment = time.fromisoformat(text)
        scalar = pa.scalar(moment, plain)
        if scalar.as_py() != moment:
            raise LiteralError("finer than the column")
        return scalar
    if not (pat.is_timestamp(plain) and plain.tz is not None):
        return pa.scalar(text).cast(plain)
    try:
        return pa.scalar(text).cast(plain)
    except pa.ArrowInvalid:
        return pc.assume_timezone(pa.scalar(text).cast(pa.timestamp(plain.unit)), plain.tz)
