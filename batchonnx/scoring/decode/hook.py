"""`python: module:function` as an output: the model's array in, a column out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import HookError, HookRaised, Problem
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.hooks import raised_at
from batchonnx.planning.output_types import shaped_type
from batchonnx.planning.types import is_writable


@dataclass(frozen=True)
class RemoteColumn:
    """A hook that runs elsewhere. begin: a batch's model outputs -> what `column_of` gives, or raises."""

    begin: Callable[[Sequence[Any]], Future[pa.Array]]


def call_hook(
    binding: OutputBinding, function: Callable[..., object] | RemoteColumn, values: Iterable[Sequence[Any]]
) -> pa.Array:
    """The function's column for one batch after the other, all of one type.

    values: of each batch, the binding's model outputs.

    Raises HookError if it raises, or returns no column, other rows, or another type than before.
    """
    arrays: list[pa.Array] = []
    found: Iterable[pa.Array]
    if isinstance(function, RemoteColumn):
        begun = [function.begin(value) for value in values]
        found = (future.result() for future in begun)
    else:
        found = (column_of(binding, function, value) for value in values)
    for array in found:
        wanted = binding.type or (arrays[0].type if arrays else array.type)
        arrays.append(array if array.type == wanted else _cast(binding, array, wanted))
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def column_of(binding: OutputBinding, function: Callable[..., object], values: Sequence[Any]) -> pa.Array:
    """A hook's column for one batch. Raises HookRaised, and HookError for what is no column of its rows."""
    try:
        result = function(*map(_read_only, values))
    except Exception as error:
        facts = {"found": f"{type(error).__name__}: {error}", "at": raised_at(error)}
        title = f"the hook {binding.function} raised {type(error).__name__}"
        raise HookRaised(Problem(title, facts, "mend the function")) from error
    array = _to_arrow(binding, result)
    if not is_writable(array.type):
        facts = {"found": str(array.type)}
        fix = "return numbers, text, dates or lists of them"
        raise HookError(Problem(f"the hook {binding.function} returned what Parquet can't hold", facts, fix))
    if len(array) != len(values[0]):
        facts = {"expected": f"{len(values[0])} rows", "found": f"{len(array)} rows"}
        fix = "return one value for each row"
        raise HookError(Problem(f"the hook {binding.function} returned other rows", facts, fix))
    return array


def _read_only(value: Any) -> Any:
    """Other columns are made of the same memory: a hook that writes in place is told, not obeyed."""
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return value


def _cast(binding: OutputBinding, array: pa.Array, wanted: pa.DataType) -> pa.Array:
    try:
        return array.cast(wanted)
    except pa.ArrowException as error:
        facts = {"expected": f"{wanted}, as its first rows", "found": str(array.type)}
        fix = "return the same type for every batch"
        if pa.types.is_null(wanted):
            facts["expected"] = "nulls alone, as its first rows"
            fix = "say the type, so that rows of nulls have it too: pa.array(values, pa.float64())"
        raise HookError(Problem(f"the hook {binding.function} changed its type", facts, fix)) from error


def _to_arrow(binding: OutputBinding, result: object) -> pa.Array:
    if isinstance(result, pa.ChunkedArray):
        return result.combine_chunks()
    if isinstance(result, pa.Array):
        return result
    if isinstance(result, (str, bytes, Mapping)):
        raise _no_column(binding, result, str(result))
    try:
        array = np.asarray(result) if isinstance(result, np.ndarray) else None
        if array is None or array.ndim <= 1:
            return pa.array(result)
        values = pa.array(np.ascontiguousarray(array).reshape(-1))
        kind = shaped_type(values.type, array.shape[1:])
        if kind == values.type:
            return values
        lists = pa.FixedSizeListArray.from_arrays(values, prod(array.shape[1:]))
        return (
            pa.ExtensionArray.from_storage(kind, lists) if isinstance(kind, pa.BaseExtensionType) else lists
        )
    except (pa.ArrowException, TypeError, ValueError) as error:
        told = f"an array of {result.dtype}" if isinstance(result, np.ndarray) else str(error)
        raise _no_column(binding, result, told) from error


def _no_column(binding: OutputBinding, result: object, told: str) -> HookError:
    facts = {"found": f"{type(result).__name__}: {told[:200]}"}
    fix = "return a numpy array, a pyarrow array or a list, of numbers, text, dates or lists of them"
    return HookError(Problem(f"the hook {binding.function} returned no column", facts, fix))
