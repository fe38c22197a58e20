"""Tensors of any rank to scalars, FixedSizeLists, FixedShapeTensors or nested lists."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.bindings import OutputBinding, told_shape
from batchonnx.planning.output_types import arrow_type, shaped_type


def cut_rows(binding: OutputBinding, value: np.ndarray, rows: int, fixed_batch: int | None) -> np.ndarray:
    """What the model gave, rows first, the padding cut off.

    Raises ContractError if there isn't a row for each input row, or rows aren't shaped as declared.
    """
    axis = binding.batch_axis
    if value.ndim <= axis or value.shape[axis] < rows:
        raise _no_row_each(binding, value, rows)
    if axis:
        value = np.moveaxis(value, axis, 0)
    if len(value) not in (rows, fixed_batch):
        raise _no_row_each(binding, value, rows)
    value = value[:rows]
    declared = binding.row_shape
    if declared is None:
        return value
    found = value.shape[1:]
    if _fits(found, declared):
        return value
    if {found, declared} <= {(), (1,)}:
        return value.reshape(rows, *declared)
    facts = {
        "model": str(binding.source),
        "expected": f"rows of {told_shape(declared)}",
        "found": f"rows of {told_shape(found)}",
    }
    fix = "export the model again with the right output shape, or a dynamic one"
    raise ContractError(
        Problem(f'model output "{binding.source.name}" isn\'t shaped as declared', facts, fix)
    )


def mean_of(binding: OutputBinding, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several outputs' blocks of the same rows. Raises ContractError if they differ in shape."""
    if len({block.shape for block in blocks}) > 1:
        found = zip(binding.values, blocks, strict=True)
        facts = {spec.name: f"{block.dtype}{list(block.shape)}" for spec, block in found}
        fix = "name outputs of one shape, or make the column in a function: python: module:function"
        title = f'the outputs that "{binding.name}" is the mean of differ in shape'
        raise ContractError(Problem(title, facts, fix))
    total = np.sum(blocks, axis=0, dtype=np.result_type(blocks[0].dtype, np.float32))
    return np.asarray(total / len(blocks), blocks[0].dtype)


def to_arrow(binding: OutputBinding, blocks: Sequence[np.ndarray]) -> pa.Array:
    """Blocks of rows as one array of the binding's type; a single block is wrapped, not copied."""
    value_type = arrow_type(blocks[0].dtype.name if blocks[0].dtype != object else "string")
    kind = binding.type if binding.type is not None else shaped_type(value_type, blocks[0].shape[1:])
    if pat.is_list(kind):
        arrays = [_lists(block, value_type) for block in blocks]
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    values = _flat(block, value_type)
    if isinstance(kind, pa.FixedShapeTensorType):
        storage = pa.FixedSizeListArray.from_arrays(values, prod(kind.shape))
        return pa.ExtensionArray.from_storage(kind, storage)
    for dim in reversed(block.shape[1:] if pat.is_fixed_size_list(kind) else ()):
        values = pa.FixedSizeListArray.from_arrays(values, dim)
    return values


def _lists(block: np.ndarray, value_type: pa.DataType) -> pa.Array:
    """[n, a, b] as list<list<value>>: every list of a block has the block's lengths."""
    values = _flat(block, value_type)
    for axis in range(block.ndim - 1, 0, -1):
        count = prod(block.shape[:axis])
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(block.shape[axis])
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def _flat(block: np.ndarray, value_type: pa.DataType) -> pa.Array:
    flat = np.ascontiguousarray(block).reshape(-1)
    return pa.array(flat, value_type)


def _fits(found: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(found) == len(declared) and all(
        want in (None, dim) for dim, want in zip(found, declared, strict=True)
    )


def _no_row_each(binding: OutputBinding, value: np.ndarray, rows: int) -> ContractError:
    name = binding.source.name
    facts = {
        "model": str(binding.source),
        "expected": f"{rows} rows on axis {binding.batch_axis}",
        "found": f"{value.dtype}{list(value.shape)}",
    }
    fix = f"set outputs.{binding.name}.batch_axis, or leave the output out if it describes the whole batch"
    return ContractError(Problem(f'model output "{name}" has no row for each input row', facts, fix))
