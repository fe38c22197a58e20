"""`python: module:function` as a feature: a RecordBatch in, a tensor or a dict of tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa

from batchonnx.errors import HookError, HookRaised, Problem
from batchonnx.planning.bindings import HookFeature, RowShape
from batchonnx.planning.hooks import raised_at
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode.columns import RowOf, bad_rows, cast_numbers

Function = Callable[[pa.RecordBatch], object]


@dataclass(frozen=True)
class RemoteHook:
    """A hook that runs elsewhere.

    begin: rows -> what `tensors_of` gives, or raises. ahead: how many batches at a time.
    """

    begin: Callable[[pa.RecordBatch], Future[dict[str, np.ndarray]]]
    ahead: int


def remote_slicer(
    feature: HookFeature, hook: RemoteHook
) -> Callable[[pa.RecordBatch], Callable[[int, int], dict[str, np.ndarray]]]:
    """As `hook_slicer`; the next batches of the chunk are encoded while one is waited for."""

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], dict[str, np.ndarray]]:
        given = chunk.select(list(feature.columns))
        begun: dict[tuple[int, int], Future[dict[str, np.ndarray]]] = {}

        def tensors(start: int, stop: int) -> dict[str, np.ndarray]:
            size = stop - start
            for first in range(start, min(given.num_rows, start + size * hook.ahead), size):
                span = first, min(first + size, given.num_rows)
                if span not in begun:
                    begun[span] = hook.begin(given.slice(first, span[1] - first))
            try:
                return begun.pop((start, stop)).result()
            except BadRow as bad:
                raise bad.moved(start) from None

        return tensors

    return load


def hook_slicer(
    feature: HookFeature, function: Function
) -> Callable[[pa.RecordBatch], Callable[[int, int], dict[str, np.ndarray]]]:
    """chunk -> (start, stop) -> the function's tensors for these rows, checked."""

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], dict[str, np.ndarray]]:
        given = chunk.select(list(feature.columns))
        return lambda start, stop: tensors_of(feature, function, given.slice(start, stop - start), start)

    return load


def tensors_of(
    feature: HookFeature, function: Function, rows: pa.RecordBatch, first: int = 0
) -> dict[str, np.ndarray]:
    """What a hook gives for some rows, checked. first: index in the chunk of the first of them.

    Raises HookRaised, BadRow, and HookError for what no input of the model can be.
    """
    try:
        result = function(rows)
    except Exception as error:
        raise hook_failed(feature.function, error) from error
    if not isinstance(result, Mapping):
        result = {feature.inputs[0].name: result}
    missing = [spec.name for spec in feature.inputs if spec.name not in result]
    if missing or len(result) > len(feature.inputs):
        facts = {
            "expected": ", ".join(spec.name for spec in feature.inputs),
            "found": ", ".join(map(str, result)) or "an empty dict",
        }
        fix = "return one tensor, or a dict with a tensor for each of the feature's inputs"
        raise HookError(Problem(f"the hook {feature.function} returned other inputs", facts, fix))
    return {
        spec.name: _checked(feature, spec, shape, result[spec.name], rows.num_rows, first)
        for spec, shape in zip(feature.inputs, feature.row_shapes, strict=True)
    }


def _checked(
    feature: HookFeature, spec: TensorSpec, row_shape: RowShape | None, value: object, rows: int, first: int
) -> np.ndarray:
    """first: index in the chunk of the hook's first row."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        facts = {"hook": feature.function, "model": str(spec), "found": str(error)[:200]}
        fix = "return rows of one shape"
        raise HookError(Problem(f'the hook\'s "{spec.name}" is no tensor', facts, fix)) from error
    found = f"{array.dtype}{list(array.shape)}" if array.ndim else type(value).__name__
    dtype = np.dtype(object if spec.dtype == "string" else spec.dtype)
    axis = feature.batch_axis
    has_rows = array.ndim > axis and array.shape[axis] == rows
    row = tuple(dim for number, dim in enumerate(array.shape) if number != axis)
    fits = row_shape is None or (
        len(row) == len(row_shape)
        and all(want in (None, dim) for dim, want in zip(row, row_shape, strict=True))
    )
    facts = {"hook": feature.function, "model": str(spec), "found": found}
    if not has_rows or not fits:
        facts["expected"] = f"{rows} rows on axis {axis}, as {spec}"
        fix = "return rows of the shape that the model takes" if has_rows else "return one row for each row"
        raise HookError(Problem(f'the hook\'s "{spec.name}" has the wrong shape', facts, fix))
    if array.dtype != dtype:
        is_text = spec.dtype == "string" and array.dtype.kind in "UST"
        if not is_text and not np.can_cast(array.dtype, dtype, "same_kind"):
            facts["expected"] = str(dtype)
            fix = f"return {dtype}: array.astype({str(dtype)!r})"
            raise HookError(Problem(f'the hook\'s "{spec.name}" has the wrong type', facts, fix))
    by_row = np.moveaxis(array, axis, 0)
    size = max(1, prod(by_row.shape[1:]))
    flat = np.ascontiguousarray(by_row).reshape(-1)
    name = f"{spec.name} of {feature.function}"
    if spec.dtype == "string":
        flat = flat.astype(object)
        _require_text(flat, name, lambda index: first + index // size)
    elif flat.dtype != dtype:
        flat = cast_numbers(flat, dtype, name, False, lambda index: first + index // size)
    array = np.moveaxis(flat.reshape(by_row.shape), 0, axis)
    return np.ascontiguousarray(array)


def _require_text(values: np.ndarray, name: str, row_of: RowOf) -> None:
    odd = np.array([not isinstance(value, str) for value in values], bool)
    if odd.any():

        def reason(index: int) -> str:
            return f"{values[index]!r:.80} ({type(values[index]).__name__}), text is wanted"

        raise bad_rows(odd, name, reason, row_of)


def hook_failed(reference: str, error: BaseException) -> HookRaised:
    """What a user's function raised, with the line in their file."""
    facts = {"found": f"{type(error).__name__}: {error}", "at": raised_at(error)}
    return HookRaised(
        Problem(f"the hook {reference} raised {type(error).__name__}", facts, "mend the function")
    )
