"""Columns of numbers or text as model inputs: scalars that are stacked, lists that are tensors."""

from __future__ import annotations

from math import prod

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import RowShape, StackedScalars, TensorColumn, fits, told_shape
from batchonnx.planning.types import cast_price, column_shape, exact_value, is_binary
from batchonnx.runtime.signature import TensorSpec


def bind_columns(
    spec: TensorSpec,
    feature: Feature,
    job: JobFile,
    schema: pa.Schema,
    wanted: RowShape | None,
    notes: list[str],
) -> StackedScalars | TensorColumn:
    """Bind columns that the schema has. wanted: the model's shape for one row; None: unknown rank.

    notes: what the user should know is added to them. Raises ContractError for what doesn't fit together.
    """
    where = f"features.{spec.name}"
    names = feature.columns or [feature.column or ""]
    narrowed = _check_casts(spec, feature, names, schema, job, where)
    notes += [narrowed] if narrowed is not None else []
    _check_fill(spec, feature, job, where)
    is_stack = feature.columns is not None or not column_shape(schema.field(names[0]).type).shape
    if is_stack:
        shape = _stack_shape(spec, names, schema, wanted, job, where)
        return StackedScalars(spec, tuple(names), shape, feature.fill, feature.cast, feature.batch_axis)
    shape = _tensor_shape(spec, names[0], schema, wanted, job, where)
    return TensorColumn(spec, names[0], shape, feature.fill, feature.cast, feature.batch_axis)


def shown(names: list[str]) -> str:
    """Some names, for people."""
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} … ({len(names)} columns)"


def _check_casts(
    spec: TensorSpec,
    feature: Feature,
    names: list[str],
    schema: pa.Schema,
    job: JobFile,
    where: str,
) -> str | None:
    """What narrows, for a note. Raises ContractError for a cast that can't be, or has to be asked for."""
    narrowed = []
    for name in names:
        value = column_shape(schema.field(name).type).value
        price = cast_price(value, spec.dtype)
        facts = {
            "job": job.where(where),
            "model": str(spec),
            "found": f"column {name} {schema.field(name).type}",
        }
        if price == "impossible":
            fix = "feed it another column, or make the tensor in a function of yours: python: module:function"
            if is_binary(value):
                fix = f"say what is encoded in it: {where}.image, .audio or .bytes; or {fix}"
            raise ContractError(
                Problem(f'column "{name}" can\'t become {spec.dtype} for "{spec.name}"', facts, fix)
            )
        if price == "loses" and not feature.cast:
            fix = f"if that is meant, say so: {where}.cast: true"
            raise ContractError(Problem(f'column "{name}" would lose integers as {spec.dtype}', facts, fix))
        if price == "narrows":
            narrowed.append(f"{name} ({value})")
    if narrowed:
        told = ", ".join(narrowed[:3]) + (f" … ({len(narrowed)} columns)" if len(narrowed) > 3 else "")
        return f'feature "{spec.name}" narrows to {spec.dtype}: {told}'
    return None


def _check_fill(spec: TensorSpec, feature: Feature, job: JobFile, where: str) -> None:
    if feature.fill is None:
        return
    try:
        exact_value(feature.fill, spec.dtype)
    except ValueError as error:
        facts = {"job": job.where(f"{where}.fill"), "model": str(spec), "found": f"{feature.fill!r}: {error}"}
        title = f'fill of "{spec.name}" is no {spec.dtype}'
        raise ContractError(Problem(title, facts, "name a value that the model input can have")) from error


def _stack_shape(
    spec: TensorSpec, names: list[str], schema: pa.Schema, wanted: RowShape | None, job: JobFile, where: str
) -> RowShape:
    for name in names:
        if column_shape(schema.field(name).type).shape:
            facts = {"job": job.where(where), "found": f"column {name} {schema.field(name).type}"}
            fix = f"one list column is a tensor by itself: {where}.column: {name}"
            raise ContractError(Problem(f'column "{name}" is no scalar, so it can\'t be stacked', facts, fix))
    width = len(names)
    if wanted is None:
        return (width,)
    if wanted == () and width == 1:
        return ()
    if len(wanted) == 1 and wanted[0] in (None, width):
        return (width,)
    wants = wanted[0] if len(wanted) == 1 else f"{list(wanted)} a row"
    facts = {
        "job": job.where(f"{where}.columns"),
        "model": str(spec),
        "found": f"{width} column{'s' * (width != 1)}: {shown(names)}",
    }
    fix = (
        "add the missing columns"
        if isinstance(wants, int) and wants > width
        else "take the columns that the model was trained on"
    )
    raise ContractError(
        Problem(f'feature "{spec.name}" is {width} wide, the model wants {wants}', facts, fix)
    )


def _tensor_shape(
    spec: TensorSpec, column: str, schema: pa.Schema, wanted: RowShape | None, job: JobFile, where: str
) -> RowShape:
    found = column_shape(schema.field(column).type).shape
    if wanted is None:
        return found
    if fits(found, wanted):
        return tuple(a if b is None else b for a, b in zip(found, wanted, strict=True))
    fixed = [dim for dim in wanted if dim is not None]
    is_flat_view = len(found) == 1 and len(fixed) == len(wanted) and found[0] in (None, prod(fixed))
    if is_flat_view:
        return wanted
    facts = {
        "job": job.where(f"{where}.column"),
        "model": str(spec),
        "expected": f"{told_shape(wanted)} a row",
        "found": f"{told_shape(found)} a row: column {column} {schema.field(column).type}",
    }
    fix = f"take the column that the model was trained on, or say how a flat list is shaped: {where}.shape"
    raise ContractError(
        Problem(f'column "{column}" doesn\'t have the shape of model input "{spec.name}"', facts, fix)
    )
