"""The Arrow type of an output column, from what the model declares and what the job asks."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import pyarrow as pa

from batchonnx.planning.bindings import OutputBinding, RowShape
from batchonnx.planning.ragged import object_type
from batchonnx.runtime.signature import TensorSpec

_ARROW = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
} | {f"{u}int{w}": getattr(pa, f"{u}int{w}")() for u in ("", "u") for w in (8, 16, 32, 64)}


def row_shape(spec: TensorSpec, batch_axis: int) -> RowShape | None:
    """The declared shape of one row; None: unknown rank.

    The batch axis is dropped whatever size it is declared with: exporters get it wrong.
    Raises ValueError for an output without that axis.
    """
    if spec.shape is None:
        return None
    if batch_axis >= len(spec.shape):
        what = "is one scalar for a whole batch" if not spec.shape else f"has no axis {batch_axis}"
        raise ValueError(f'model output "{spec.name}" {what}')
    dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
    del dims[batch_axis]
    return tuple(dims)


def arrow_type(dtype: str) -> pa.DataType | None:
    """The Arrow type of a tensor's elements; None where Arrow has none (bfloat16, float8)."""
    return _ARROW.get(dtype)


def column_type(binding: OutputBinding) -> pa.DataType | None:
    """The type of the column; None where only a first batch tells (hooks, unknown ranks)."""
    if binding.detection is not None:
        return object_type(binding)
    value = _value_type(binding)
    return pa.list_(value) if binding.counted is not None and value is not None else value


def _value_type(binding: OutputBinding) -> pa.DataType | None:
    """Of a row, or of each of its values that count."""
    if binding.function is not None:
        return None
    value = arrow_type(binding.source.dtype)
    if is_vector(binding):
        return _vector_type(binding, value)
    if binding.softmax or binding.sigmoid:
        value = pa.float32() if value == pa.float16() else value
    is_maps = binding.source.kind == "maps"
    if binding.threshold is not None:
        return pa.string() if binding.labels else pa.bool_()
    key = arrow_type(binding.source.key_dtype or "int64")
    label = pa.string() if binding.labels else (key if is_maps else pa.int64())
    if binding.argmax:
        return label
    if binding.top_k is not None:
        return pa.list_(pa.struct([("label", label), ("score", value)]))
    if binding.index is not None:
        return value
    if is_maps:
        return pa.map_(key, value)
    return None if binding.row_shape is None else shaped_type(value, binding.row_shape)


def is_vector(binding: OutputBinding) -> bool:
    """Whether each row becomes a vector: something is pooled, normalized or kept in fewer bits."""
    return binding.pool is not None or binding.normalize or binding.precision is not None


def _vector_type(binding: OutputBinding, value: pa.DataType) -> pa.DataType | None:
    """None where only a first batch tells how long the vectors are."""
    dims = [dim for dim in binding.row_shape or () if dim is not None]
    if binding.row_shape is None or len(dims) < len(binding.row_shape):
        return None
    value = {"float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8(), None: value}[binding.precision]
    if value == pa.float16() and binding.precision is None:
        value = pa.float32()
    *outer, width = dims or [1]
    return shaped_type(value, (*outer, ceil(width / 8) if binding.precision == "binary" else width))


def shaped_type(value: pa.DataType, shape: RowShape) -> pa.DataType:
    """A scalar, a FixedSizeList, a FixedShapeTensor, or nested lists where a dimension varies."""
    if shape in ((), (1,)):
        return value
    if any(dim is None for dim in shape):
        for _ in shape:
            value = pa.list_(value)
        return value
    fixed = [dim for dim in shape if dim is not None]
    if len(fixed) == 1:
        return pa.list_(value, fixed[0])
    if value == pa.string() or value == pa.bool_():
        for dim in reversed(fixed):
            value = pa.list_(value, dim)
        return value
    return pa.fixed_shape_tensor(value, fixed)


def validate(binding: OutputBinding) -> list[str]:
    """What can't be, one sentence each; empty if all is well."""
    return list(_faults(binding))


def _faults(binding: OutputBinding) -> Iterator[str]:
    spec = binding.source
    if binding.detection is not None:
        return  # looked at when it was bound
    if binding.others and binding.function is None:
        if any(one.kind != "tensor" or not one.dtype.startswith("float") for one in binding.values):
            yield "a mean needs floats: of others, a function makes a column: python"
            return
        if len({(one.dtype, _rank(one)) for one in binding.values}) > 1:
            yield "the outputs of a mean differ in type or number of dimensions"
            return
    if arrow_type(spec.dtype) is None:
        yield f'model output "{spec.name}" is {spec.dtype}, which Arrow has no column for'
        return
    is_scored = binding.softmax or binding.sigmoid or binding.argmax or binding.top_k or binding.threshold
    if is_scored and spec.dtype in ("string", "bool"):
        yield f'model output "{spec.name}" is {spec.dtype}: there is nothing to rank or compare'
        return
    if (binding.softmax or binding.sigmoid) and not spec.dtype.startswith("float"):
        yield f'softmax and sigmoid need floats, model output "{spec.name}" is {spec.dtype}'
    if is_vector(binding) and (spec.kind == "maps" or not spec.dtype.startswith("float")):
        yield f'pool, normalize and precision need floats, model output "{spec.name}" is {spec.dtype}'
        return
    if binding.pool is not None and binding.row_shape is not None and len(spec.shape or ()) != 3:
        yield f"pool needs a vector for each token, [batch, tokens, k]: {spec}"
        return
    classes = _classes(binding)
    if spec.kind == "maps" or binding.row_shape is None:
        return
    per_class = binding.softmax or binding.argmax or binding.top_k is not None or binding.index is not None
    if per_class and len(binding.row_shape) != 1:
        what = "one value" if not binding.row_shape else f"{len(binding.row_shape)} dimensions"
        yield f'softmax, argmax, top_k and index need one list a row, model output "{spec.name}" has {what}'
        return
    if (
        binding.threshold is not None
        and binding.index is None
        and binding.row_shape not in ((), (1,), (None,))
    ):
        yield f'threshold needs one value a row, model output "{spec.name}" has more: add index'
    if binding.threshold is not None and binding.labels and len(binding.labels) != 2:
        yield f"labels has {len(binding.labels)} names, threshold wants 2: below, and at least"
    if classes is None:
        return
    if binding.index is not None and not -classes <= binding.index < classes:
        yield f'index {binding.index} is beyond the {classes} values of model output "{spec.name}"'
    if binding.top_k is not None and binding.top_k > classes:
        yield f'top_k {binding.top_k} is more than the {classes} values of model output "{spec.name}"'
    if (binding.argmax or binding.top_k) and binding.labels and len(binding.labels) != classes:
        yield f'labels has {len(binding.labels)} names, model output "{spec.name}" has {classes} values a row'


def _rank(spec: TensorSpec) -> int | None:
    return len(spec.shape) if spec.shape is not None else None


def _classes(binding: OutputBinding) -> int | None:
    shape = binding.row_shape
    return shape[0] if shape is not None and len(shape) == 1 else None
