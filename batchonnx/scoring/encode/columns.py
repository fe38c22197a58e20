"""One column to one numpy array: decoded, nulls filled, cast, checked."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.job.spec import Scalar
from batchonnx.scoring.chunk import BadRow

_ARROW = {str(np.dtype(kind)): pa.from_numpy_dtype(kind) for kind in "?bBhHiIlLefd"}
"""numpy's name -> the Arrow type with the same memory."""

RowOf = Callable[[int], int]
"""Index of a value -> index of its row; they differ where a row has many values."""


def is_as_needed(values: pa.Array, dtype: str) -> bool:
    """Whether a column has the tensor's type and no nulls: there is nothing to cast, to fill or to check."""
    return bool(values.null_count == 0 and values.type == _ARROW.get(dtype))


def to_numpy(
    values: pa.Array, dtype: str, column: str, fill: Scalar | None, cast: bool, row_of: RowOf = int
) -> np.ndarray:
    """A flat array of scalars as [len(values)] of `dtype`; a view where type and nulls allow.

    fill: what a null becomes; None: NaN for floats, BadRow for anything else.
    cast: integers may be rounded, fractions dropped; overflow is a BadRow all the same.
    """
    if is_as_needed(values, dtype):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pat.is_dictionary(values.type):
        values = values.dictionary_decode()
    if dtype == "string":
        return _strings(values, column, fill, row_of)
    if values.null_count == 0:
        return _numbers(values, dtype, column, cast, row_of)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if fill is None and not dtype.startswith("float"):
        raise bad_rows(missing, column, lambda _: f"null, and {dtype} has no NaN", row_of)
    zero = Decimal(0) if pat.is_decimal(values.type) else 0
    known = pc.fill_null(values, pa.array([zero]).cast(values.type)[0])
    result = _numbers(known, dtype, column, cast, row_of)
    # Only now, in the tensor's own type: the column's may not have the value.
    result = result if result.flags.writeable else result.copy()
    result[missing] = np.nan if fill is None else fill
    return result


def _numbers(values: pa.Array, dtype: str, column: str, cast: bool, row_of: RowOf) -> np.ndarray:
    """Numbers without nulls."""
    target = np.dtype(dtype)
    if pat.is_decimal(values.type):
        if target.kind in "iu":
            return _whole_decimals(values, target, column, cast, row_of)
        values = values.cast(pa.float64())
    found = values.to_numpy(zero_copy_only=False)
    return np.asarray(found) if found.dtype == target else cast_numbers(found, target, column, cast, row_of)


def _strings(values: pa.Array, column: str, fill: Scalar | None, row_of: RowOf) -> np.ndarray:
    if values.null_count:
        if fill is None:
            missing = values.is_null().to_numpy(zero_copy_only=False)
            raise bad_rows(missing, column, lambda _: "null, and text has no NaN", row_of)
        values = pc.fill_null(values, pa.scalar(str(fill), values.type))
    # An object array of str: ONNX Runtime needs quadratic memory for numpy's byte strings.
    return np.array(values.to_pylist(), dtype=object)


def _whole_decimals(values: pa.Array, target: np.dtype, column: str, cast: bool, row_of: RowOf) -> np.ndarray:
    """Decimals as integers, not by way of floats: those have digits for 2**53 alone."""
    if pat.is_decimal32(values.type) or pat.is_decimal64(values.type):
        values = values.cast(
            pa.decimal128(values.type.precision, values.type.scale)
        )  # Arrow can't round those
    whole = pc.round(values, 0, "towards_zero")
    if not cast and not whole.equals(values):
        even = pc.equal(whole, values).to_numpy(zero_copy_only=False)
        _require(even, values, column, f"is no whole number, {target} is", row_of)
    try:
        return np.asarray(whole.cast(_ARROW[target.name]).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        limits = np.iinfo(target)
        fits = np.array([limits.min <= value <= limits.max for value in whole.to_pylist()])
        _require(fits, values, column, f"doesn't fit {target}", row_of)
        raise


def cast_numbers(found: np.ndarray, target: np.dtype, column: str, cast: bool, row_of: RowOf) -> np.ndarray:
    """A cast that never wraps, never overflows and, unless `cast`, never rounds an integer."""
    if found.dtype.kind == "b":
        return found.astype(target)
    if target.kind == "f":
        result = _to_float(found, target, column, row_of)
        if found.dtype.kind != "f" and not cast:
            _require(_equal(found, result), found, column, f"can't be {target} without rounding", row_of)
        return result
    if np.can_cast(found.dtype, target, "safe"):
        return found.astype(target)
    limits = np.iinfo(target)
    whole = np.trunc(found) if found.dtype.kind == "f" else found
    if found.dtype.kind == "f":
        # The largest float below 2**63 is far from it: compare with the exclusive power of two.
        fits = (whole >= float(limits.min)) & (whole < float(limits.max) + 1)
    else:
        fits = _within(whole, int(limits.min), int(limits.max))
    _require(fits, found, column, f"doesn't fit {target}", row_of)
    if not cast:
        _require(whole == found, found, column, f"is no whole number, {target} is", row_of)
    return whole.astype(target)


def _to_float(found: np.ndarray, target: np.dtype, column: str, row_of: RowOf) -> np.ndarray:
    """Only what was infinite becomes infinite."""
    try:
        with np.errstate(over="raise"):  # the processor notices by itself
            return found.astype(target)
    except FloatingPointError:
        with np.errstate(over="ignore"):
            fits = np.isfinite(found.astype(target)) | ~np.isfinite(found)
        _require(fits, found, column, f"doesn't fit {target}", row_of)
        raise


def _equal(integers: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """Exact comparison: an integer is equal to the float that it became."""
    wide = np.finfo(np.float64).nmant + 1
    if integers.dtype.itemsize < 8 or np.all(np.abs(integers.astype(np.float64)) < 2.0**wide):
        return np.asarray(floats.astype(np.float64) == integers)
    same = [bool(np.isfinite(f)) and int(f) == int(i) for i, f in zip(integers, floats, strict=True)]
    return np.array(same)


def _within(values: np.ndarray, low: int, high: int) -> np.ndarray:
    info = np.iinfo(values.dtype)
    fits = np.ones(len(values), bool)
    if low > info.min:
        fits &= values >= values.dtype.type(low)
    if high < info.max:
        fits &= values <= values.dtype.type(high)
    return fits


def bad_rows(bad: np.ndarray, column: str, reason: Callable[[int], str], row_of: RowOf = int) -> BadRow:
    """All rows that one look at a column has found. bad: bool[n values], some true; reason: of a value."""
    first, *rest = np.flatnonzero(bad).tolist()
    return BadRow(row_of(first), column, reason(first), lambda: ((row_of(i), reason(i)) for i in rest))


def _require(good: np.ndarray, values: np.ndarray | pa.Array, column: str, what: str, row_of: RowOf) -> None:
    if not good.all():
        raise bad_rows(~good, column, lambda index: f"{values[index]} {what}", row_of)
