"""One column to one numpy array: decoded, nulls filled, cast, checked."""

from __future__ import annotations

from collections.abc import Callable

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


def to_numpy(
    values: pa.Array, dtype: str, column: str, fill: Scalar | None, cast: bool, row_of: RowOf = int
) -> np.ndarray:
    """A flat array of scalars as [len(values)] of `dtype`; a view where type and nulls allow.

    fill: what a null becomes; None: NaN for floats, BadRow for anything else.
    cast: integers may be rounded; overflow is a BadRow all the same.
    """
    if values.null_count == 0 and values.type == _ARROW.get(dtype):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pat.is_dictionary(values.type):
        values = values.dictionary_decode()
    if dtype == "string":
        return _strings(values, column, fill, row_of)
    if pat.is_decimal(values.type):
        values = _from_decimal(values, dtype, column, cast, row_of)
    missing = values.null_count and values.is_null().to_numpy(zero_copy_only=False)
    if values.null_count:
        values = _without_nulls(values, dtype, column, fill, row_of)
    found = values.to_numpy(zero_copy_only=False)
    if found.dtype == dtype:
        if values is not None and np.any(missing) and fill is None:
            found = found.copy()
            found[missing] = np.nan
        return np.asarray(found)
    target = np.dtype(dtype)
    result = _cast(found, target, column, cast, row_of)
    if np.any(missing) and fill is None:
        result[missing] = np.nan
    return result


def _without_nulls(values: pa.Array, dtype: str, column: str, fill: Scalar | None, row_of: RowOf) -> pa.Array:
    """Nulls replaced: by `fill`, or by a zero that becomes NaN once the array is a float's."""
    if fill is None and not dtype.startswith("float"):
        index = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise BadRow(row_of(index), column, f"null, and {dtype} has no NaN")
    try:
        scalar = pa.scalar(0 if fill is None else fill).cast(values.type)
    except pa.ArrowInvalid:
        # A fill that the column's own type can't hold (0.5 into integers): widen the column.
        return pc.fill_null(values.cast(pa.float64()), pa.scalar(float(fill or 0)))
    return pc.fill_null(values, scalar)


def _strings(values: pa.Array, column: str, fill: Scalar | None, row_of: RowOf) -> np.ndarray:
    if values.null_count:
        if fill is None:
            index = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise BadRow(row_of(index), column, "null, and text has no NaN")
        values = pc.fill_null(values, pa.scalar(str(fill), values.type))
    # An object array of str: ONNX Runtime needs quadratic memory for numpy's byte strings.
    return np.array(values.to_pylist(), dtype=object)


def _from_decimal(values: pa.Array, dtype: str, column: str, cast: bool, row_of: RowOf) -> pa.Array:
    return values.cast(pa.float64())


def _cast(found: np.ndarray, target: np.dtype, column: str, cast: bool, row_of: RowOf) -> np.ndarray:
    """A cast that never wraps and, unless `cast`, never rounds an integer."""
    if found.dtype.kind == "b" or (target.kind == "f" and found.dtype.kind == "f"):
        with np.errstate(over="ignore"):
            return found.astype(target)
    if target.kind == "f":
        with np.errstate(over="ignore"):
            result = found.astype(target)
        if not cast:
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


def _require(good: np.ndarray, values: np.ndarray, column: str, what: str, row_of: RowOf) -> None:
    if not good.all():
        index = int(np.argmin(good))
        raise BadRow(row_of(index), column, f"{values[index]} {what}")
