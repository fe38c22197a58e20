"""Which Arrow type may feed which tensor, and at what price."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from batchonnx.planning.bindings import RowShape

Price = Literal["free", "narrows", "loses", "impossible"]
"""free: every value survives. narrows: a float loses digits. loses: an integer may be lost, so it
has to be asked for. impossible: there is no such cast."""

_MANTISSA_BITS = {"float16": 11, "float32": 24, "float64": 53}
"""Integers up to 2**bits are exact in the float (IEEE 754)."""


@dataclass(frozen=True)
class ColumnShape:
    """What one row of a column holds.

    value: the innermost type, dictionaries decoded. shape: () for a scalar; None dims vary.
    """

    value: pa.DataType
    shape: RowShape


def column_shape(arrow_type: pa.DataType) -> ColumnShape:
    """Unwrap lists, fixed-size lists and tensors; a permuted tensor gives its logical shape."""
    if isinstance(arrow_type, pa.FixedShapeTensorType):
        shape = list(arrow_type.shape)
        if arrow_type.permutation:
            shape = [shape[axis] for axis in arrow_type.permutation]
        return ColumnShape(arrow_type.value_type, tuple(shape))
    if isinstance(arrow_type, pa.BaseExtensionType):
        return column_shape(arrow_type.storage_type)
    if pat.is_fixed_size_list(arrow_type):
        inner = column_shape(arrow_type.value_type)
        return ColumnShape(inner.value, (arrow_type.list_size, *inner.shape))
    if pat.is_list(arrow_type) or pat.is_large_list(arrow_type):
        inner = column_shape(arrow_type.value_type)
        return ColumnShape(inner.value, (None, *inner.shape))
    if pat.is_dictionary(arrow_type):
        return column_shape(arrow_type.value_type)
    return ColumnShape(arrow_type, ())


def joinable(arrow_type: pa.DataType) -> pa.DataType:
    """The type in which a column of several files is read.

    A file's dictionary may be counted by int8, as pandas writes its categories; those of two files,
    taken together, may need more.
    """
    if pat.is_dictionary(arrow_type) and arrow_type.index_type.bit_width < 32:
        return pa.dictionary(pa.int32(), arrow_type.value_type, arrow_type.ordered)
    return arrow_type


def is_text(arrow_type: pa.DataType) -> bool:
    """Any of Arrow's string layouts."""
    return bool(
        pat.is_string(arrow_type) or pat.is_large_string(arrow_type) or pat.is_string_view(arrow_type)
    )


def is_binary(arrow_type: pa.DataType) -> bool:
    """Any of Arrow's layouts of raw bytes."""
    return bool(
        pat.is_binary(arrow_type)
        or pat.is_large_binary(arrow_type)
        or pat.is_binary_view(arrow_type)
        or pat.is_fixed_size_binary(arrow_type)
    )


def is_number(arrow_type: pa.DataType) -> bool:
    """A bool, an integer, a float or a decimal: what a numeric tensor can be made of."""
    return bool(
        pat.is_boolean(arrow_type)
        or pat.is_integer(arrow_type)
        or pat.is_floating(arrow_type)
        or pat.is_decimal(arrow_type)
    )


def cast_price(value: pa.DataType, dtype: str) -> Price:
    """What it costs to bring a column's values into a tensor of `dtype` (numpy's name)."""
    if dtype == "string":
        return "free" if is_text(value) else "impossible"
    is_known = dtype in _MANTISSA_BITS or dtype.rstrip("0123456789") in ("int", "uint", "bool")
    if not is_known or not is_number(value):
        return "impossible"
    if dtype == "bool":
        return "free" if pat.is_boolean(value) else "impossible"
    if pat.is_boolean(value):
        return "free"
    if pat.is_decimal(value):
        return "narrows" if dtype in _MANTISSA_BITS else "loses"
    if pat.is_floating(value):
        if dtype not in _MANTISSA_BITS:
            return "loses"
        return "free" if value.bit_width <= int(dtype[5:]) else "narrows"
    return "free" if _holds_every(value, dtype) else "loses"


def _holds_every(integer: pa.DataType, dtype: str) -> bool:
    unsigned = pat.is_unsigned_integer(integer)
    digits = integer.bit_width - (0 if unsigned else 1)
    if dtype in _MANTISSA_BITS:
        return bool(digits <= _MANTISSA_BITS[dtype])
    width = int(dtype.lstrip("uint"))
    if dtype.startswith("u"):
        return bool(unsigned and integer.bit_width <= width)
    return bool(digits <= width - 1)


def is_writable(arrow_type: pa.DataType) -> bool:
    """Parquet has such a type."""
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("column", arrow_type)])).close()
    except pa.ArrowNotImplementedError:
        return False
    return True


def plain(value: pa.Scalar) -> Any:
    """A value as Python has it; as text where it hasn't: nanoseconds, the year 30,000."""
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        try:
            return value.cast(pa.string()).as_py()
        except pa.ArrowException:  # inside of a list, say
            return f"a {value.type} beyond Python's range"


def exact_value(value: object, dtype: str) -> np.ndarray:
    """A constant of the job file as an array of `dtype`, or of text.

    Raises ValueError, with what is wrong, if it isn't a value of that type: another kind, a fraction or too
    large. A float may lose digits, as decimal fractions do.
    """
    if dtype == "string":
        texts = np.array(value, dtype=object)
        if not all(isinstance(text, str) for text in texts.flat):
            raise ValueError("text is wanted: put quotes around it")
        return texts
    given = np.array(value)
    if given.dtype.kind in "US":
        raise ValueError(f"text is no {dtype}")
    try:
        with np.errstate(over="raise"):
            exact = given.astype(np.dtype(dtype))
    except (FloatingPointError, OverflowError) as error:
        raise ValueError(f"it doesn't fit {dtype}") from error
    except TypeError as error:
        raise ValueError(f"it is no {dtype}") from error
    if exact.dtype.kind != "f" and not np.array_equal(exact, given):
        raise ValueError(f"it doesn't fit {dtype}")
    return exact


def row_bytes(schema: pa.Schema, columns: Iterable[str], table_row_bytes: float) -> float:
    """Estimated bytes of one row of `columns` in memory.

    table_row_bytes: of a whole row, from the footers; stands in for columns of variable width.
    """
    total = 0.0
    for name in columns:
        shape = column_shape(schema.field(name).type)
        try:
            width = shape.value.bit_width / 8
        except ValueError:
            return max(table_row_bytes, 1.0)
        for dim in shape.shape:
            if dim is None:
                return max(table_row_bytes, 1.0)
            width *= dim
        total += width
    return max(total, 1.0)
