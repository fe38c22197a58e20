"""`python: module:function` as an output: the model's array in, a column out."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import HookError, HookRaised, Problem
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.output_types import shaped_type


def call_hook(binding: OutputBinding, function: Callable[..., object], value: Any) -> pa.Array:
    """The function's column for one batch. Raises HookError if it raises or has other rows."""
    if isinstance(value, np.ndarray):
        # Other columns are made of the same memory: a hook that writes in place is told, not obeyed.
        value = value.view()
        value.flags.writeable = False
    try:
        result = function(value)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        facts = {
            "found": f"{type(error).__name__}: {error}",
            "at": f"{last.filename}:{last.lineno}  {last.line}",
        }
        title = f"the hook {binding.function} raised {type(error).__name__}"
        raise HookRaised(Problem(title, facts, "mend the function")) from error
    array = _to_arrow(binding, result)
    if len(array) != len(value):
        facts = {"expected": f"{len(value)} rows", "found": f"{len(array)} rows"}
        fix = "return one value for each row"
        raise HookError(Problem(f"the hook {binding.function} returned other rows", facts, fix))
    if binding.type is not None and array.type != binding.type and not pa.types.is_null(binding.type):
        try:
            return array.cast(binding.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            facts = {"expected": str(binding.type), "found": str(array.type)}
            fix = "return the same type for every batch"
            raise HookError(Problem(f"the hook {binding.function} changed its type", facts, fix)) from error
    return array


def _to_arrow(binding: OutputBinding, result: object) -> pa.Array:
    if isinstance(result, pa.ChunkedArray):
        return result.combine_chunks()
    if isinstance(result, pa.Array):
        return result
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
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        facts = {"found": f"{type(result).__name__}: {str(error)[:200]}"}
        fix = "return a numpy array, a pyarrow array or a list"
        raise HookError(Problem(f"the hook {binding.function} returned no column", facts, fix)) from error
