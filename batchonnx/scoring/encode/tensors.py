"""List and tensor columns, viewed as [n, *row_shape]."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.planning.bindings import TensorColumn
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode.columns import bad_rows, to_numpy


def tensor_rows(feature: TensorColumn, chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
    """(start, stop) -> the tensor of these rows; encoded as a whole where all rows have one shape.

    Where they don't, batch by batch: only the rows of one batch have to be alike, however rows
    were gathered into chunks. The function given back raises BadRow where they aren't.
    """
    try:
        whole = load_tensors(feature, chunk)
    except BadRow:
        return lambda start, stop: _one_batch(feature, chunk, start, stop)
    return lambda start, stop: whole[start:stop]


def _one_batch(feature: TensorColumn, chunk: pa.RecordBatch, start: int, stop: int) -> np.ndarray:
    try:
        return load_tensors(feature, chunk.slice(start, stop - start))
    except BadRow as bad:
        raise bad.moved(start) from bad


def load_tensors(feature: TensorColumn, chunk: pa.RecordBatch) -> np.ndarray:
    """[n, *row_shape] of the input's dtype; the column's own memory where type and nulls allow.

    A tensor column that carries a permutation is read in its logical order.
    Raises BadRow for a null row that can't be filled and for a row of another shape.
    """
    array = chunk.column(feature.column)
    name, rows = feature.column, len(array)
    permutation = None
    if isinstance(array.type, pa.FixedShapeTensorType):
        permutation = array.type.permutation
        stored = tuple(array.type.shape)
        array = array.storage
        values, shape = _values(array, name)
        shape = stored
    else:
        values, shape = _values(array, name)
    size = max(1, prod(shape))
    flat = to_numpy(values, feature.input.dtype, name, feature.fill, feature.cast, lambda i: i // size)
    tensor = flat.reshape(rows, *shape)
    if permutation is not None:
        tensor = tensor.transpose(0, *(axis + 1 for axis in permutation))
    tensor = _as_wanted(feature, tensor)
    if array.null_count:
        tensor = _fill_rows(feature, tensor, array.is_null().to_numpy(zero_copy_only=False))
    return np.ascontiguousarray(tensor)


def _values(array: pa.Array, column: str) -> tuple[pa.Array, tuple[int, ...]]:
    """The innermost values in order, one run for each row, and each row's shape.

    A null row keeps its place: as whatever lies beneath it, or as nulls.
    """
    shape: list[int] = []
    rows_per_item = 1
    while True:
        if pat.is_fixed_size_list(array.type):
            length = array.type.list_size
            array = array.values.slice(array.offset * length, len(array) * length)
        elif pat.is_list(array.type) or pat.is_large_list(array.type):
            array, length = _equal_lists(array, column, rows_per_item)
        else:
            return array, tuple(shape)
        shape.append(length)
        rows_per_item *= length


def _equal_lists(array: pa.Array, column: str, items_per_row: int) -> tuple[pa.Array, int]:
    """A list array whose items have one length as its values, and that length."""
    if len(array) == 0:
        return array.values.slice(0, 0), 0
    offsets = array.offsets.to_numpy()
    lengths = np.diff(offsets)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if not valid.any():
        raise BadRow(0, column, "null, as are its neighbours, so that its length can't be told")
    length = int(lengths[np.argmax(valid)])
    odd = valid & (lengths != length)
    if odd.any():
        per_row = max(1, items_per_row)

        def reason(item: int) -> str:
            return f"a list of {lengths[item]}, its neighbours have {length}"

        raise bad_rows(odd, column, reason, lambda item: item // per_row)
    if valid.all():
        return array.values.slice(int(offsets[0]), length * len(array)), length
    places = offsets[:-1, None] + np.arange(length)
    places = pa.array(places.ravel(), mask=np.repeat(~valid, length))
    return pc.take(array.values, places), length


def _as_wanted(feature: TensorColumn, tensor: np.ndarray) -> np.ndarray:
    """The tensor in the shape that the model wants; a flat list may be seen as any shape of its size."""
    found, wanted = tensor.shape[1:], feature.row_shape
    fits = len(found) == len(wanted) and all(
        want in (None, dim) for dim, want in zip(found, wanted, strict=True)
    )
    if fits or not len(tensor):
        return tensor if fits else tensor.reshape(0, *(dim or 0 for dim in wanted))
    fixed = [dim for dim in wanted if dim is not None]
    if len(found) == 1 and len(fixed) == len(wanted) and prod(fixed) == found[0]:
        return tensor.reshape(-1, *fixed)
    expected = " x ".join("any" if dim is None else str(dim) for dim in wanted)
    raise BadRow(0, feature.column, f"{' x '.join(map(str, found))} values, {expected} are wanted")


def _fill_rows(feature: TensorColumn, tensor: np.ndarray, missing: np.ndarray) -> np.ndarray:
    if feature.fill is None and not feature.input.dtype.startswith("float"):
        raise bad_rows(missing, feature.column, lambda _: f"null, and {feature.input.dtype} has no NaN")
    filled = tensor.copy()
    filled[missing] = np.nan if feature.fill is None else feature.fill
    return filled
