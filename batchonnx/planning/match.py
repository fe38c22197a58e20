"""Features that a job leaves out: matched by name, type and shape, where that is unambiguous."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.job.spec import BytesWindow, Feature
from batchonnx.planning.types import cast_price, column_shape, is_binary, is_number, is_text
from batchonnx.runtime.signature import ModelSignature, TensorSpec

KEY_NAMES = ("id", "key", "uuid", "guid", "path", "name")
FEATURE_NAMES = "feature_names"
"""Metadata key under which a model may carry its columns' names, as a JSON list."""


@dataclass(frozen=True)
class Match:
    """A feature as a user would have written it, and why it was chosen.

    sure: nothing else could have been meant, so that `plan` may go on without asking.
    """

    feature: Feature
    reason: str
    sure: bool


def match_input(spec: TensorSpec, model: ModelSignature, schema: pa.Schema) -> Match | None:
    """The columns that feed a model input, or None where nothing fits.

    In order: the column of that name; the names in the model's own metadata; the only column or
    the only set of scalar columns of the right shape and type.
    """
    if spec.shape is None or spec.kind != "tensor":
        return None
    row = spec.shape[1:]
    wants_scalar = row in ((), (1,))
    if spec.name in schema.names and _fits(spec, schema.field(spec.name).type):
        return Match(_column(spec, schema, spec.name), "the column of that name", sure=True)
    if len(row) == 1 and (match := _named_in_metadata(spec, model, schema)):
        return match
    tensors = [f.name for f in schema if column_shape(f.type).shape and _fits(spec, f.type)]
    if len(tensors) == 1 and not wants_scalar:
        return Match(_column(spec, schema, tensors[0]), "the only column of that shape", sure=True)
    if len(row) == 1 and isinstance(row[0], int):
        return _stack(spec, schema, row[0]) or _bytes(spec, schema, row[0])
    scalars = [f.name for f in schema if not column_shape(f.type).shape and _fits(spec, f.type)]
    if wants_scalar and len(scalars) == 1:
        return Match(_column(spec, schema, scalars[0]), "the only column of that type", sure=True)
    return None


def _column(spec: TensorSpec, schema: pa.Schema, name: str) -> Feature:
    value = column_shape(schema.field(name).type).value
    return Feature(column=name, cast=cast_price(value, spec.dtype) == "loses")


def _columns(spec: TensorSpec, schema: pa.Schema, names: Sequence[str]) -> Feature:
    prices = {cast_price(schema.field(name).type, spec.dtype) for name in names}
    return Feature(columns=list(names), cast="loses" in prices)


def _fits(spec: TensorSpec, arrow_type: pa.DataType) -> bool:
    assert spec.shape is not None
    found = column_shape(arrow_type)
    if cast_price(found.value, spec.dtype) == "impossible":
        return False
    row = spec.shape[1:]
    if not found.shape:
        return row in ((), (1,)) or (len(row) == 1 and not isinstance(row[0], int))
    if len(found.shape) == len(row):
        return all(
            a == b for a, b in zip(found.shape, row, strict=True) if a is not None and isinstance(b, int)
        )
    return False


def _named_in_metadata(spec: TensorSpec, model: ModelSignature, schema: pa.Schema) -> Match | None:
    if len(model.inputs) != 1 or FEATURE_NAMES not in model.metadata:
        return None
    try:
        names = json.loads(model.metadata[FEATURE_NAMES])
    except json.JSONDecodeError:
        return None
    if not isinstance(names, list) or not all(name in schema.names for name in names):
        return None
    assert spec.shape is not None
    if isinstance(spec.shape[1], int) and spec.shape[1] != len(names):
        return None
    if any(not is_number(schema.field(name).type) and not is_text(schema.field(name).type) for name in names):
        return None
    return Match(_columns(spec, schema, names), "the columns that the model's metadata names", sure=True)


def _stack(spec: TensorSpec, schema: pa.Schema, width: int) -> Match | None:
    """`width` scalar columns: of the model's very type, then floats, then any that can be cast."""
    usable = [f for f in schema if cast_price(f.type, spec.dtype) != "impossible"]
    exact = [f.name for f in usable if str(f.type).replace("halffloat", "float16") == _arrow_name(spec.dtype)]
    floats = [f.name for f in usable if pat.is_floating(f.type)]
    every = [f.name for f in usable]
    for names, what in ((exact, spec.dtype), (floats, "float"), (every, "usable")):
        if len(names) == width:
            return Match(_columns(spec, schema, names), f"the only {width} {what} columns", sure=True)
    for names, what in ((exact, spec.dtype), (floats, "float"), (every, "usable")):
        if len(names) > width:
            reason = f"the first {width} of {len(names)} {what} columns"
            return Match(_columns(spec, schema, names[:width]), reason, sure=False)
    return None


def _arrow_name(dtype: str) -> str:
    return {"float32": "float", "float64": "double"}.get(dtype, dtype)


def _bytes(spec: TensorSpec, schema: pa.Schema, width: int) -> Match | None:
    binary = [f.name for f in schema if is_binary(f.type)]
    if len(binary) != 1 or not spec.dtype.startswith("int") or width < 2:
        return None
    window = BytesWindow(head=width - width // 2, tail=width // 2, window=4096, strip=True)
    reason = "the only binary column: its first and last bytes, white space stripped, 256 where there is none"
    return Match(Feature(column=binary[0], bytes=window), reason, sure=False)
