"""The input half of the contract: each model input bound to columns, or a problem that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import prod

import numpy as np
import pyarrow as pa

from batchonnx.errors import ContractError, HookError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import (
    TOKEN_INPUTS,
    AudioColumn,
    BytesColumn,
    Constant,
    FeatureBinding,
    HookFeature,
    ImageColumn,
    RowShape,
    StackedScalars,
    TensorColumn,
    TextColumn,
    inputs_of,
)
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.images import bind_image
from batchonnx.planning.match import match_input
from batchonnx.planning.sounds import bind_audio
from batchonnx.planning.texts import bind_text
from batchonnx.planning.types import cast_price, column_shape, exact_value, is_binary, is_text
from batchonnx.runtime.signature import ModelSignature, TensorSpec


@dataclass
class Bound:
    """What came of binding: read it once all inputs have been looked at."""

    bindings: list[FeatureBinding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Mismatch(Exception):
    """A feature that can't be bound; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def bind_features(job: JobFile, model: ModelSignature, schema: pa.Schema) -> Bound:
    """Bind every input of the model; collects all problems instead of raising."""
    bound = Bound()
    specs = {spec.name: spec for spec in model.inputs}
    fed = set(job.job.scan)
    for name, feature in (job.job.features or {}).items():
        try:
            binding = _bind(name, feature, job, specs, schema, bound)
        except _Mismatch as mismatch:
            bound.problems.append(mismatch.problem)
            fed.update(_meant(name, feature))
        except (HookError, ContractError) as error:
            bound.problems.extend(error.problems)
            fed.update(_meant(name, feature))
        else:
            bound.bindings.append(binding)
            fed.update(spec.name for spec in inputs_of(binding))
    for spec in model.inputs:
        if spec.name in fed:
            continue
        match = match_input(spec, model, schema)
        if match is None or not match.sure:
            bound.problems.append(_unfed(spec, schema, model, job))
            continue
        if match.feature.cast:
            bound.problems.append(_matched_loses(spec, match.feature, schema, job))
            continue
        bound.bindings.append(_bind(spec.name, match.feature, job, specs, schema, bound))
        bound.notes.append(f'input "{spec.name}" is fed from {_named(match.feature)}: {match.reason}')
    return bound


def _meant(name: str, feature: Feature) -> Sequence[str]:
    """The inputs that a feature would feed if nothing were wrong with it."""
    return [name, *TOKEN_INPUTS] if feature.tokenizer is not None else feature.inputs or [name]


def _named(feature: Feature) -> str:
    names = feature.columns or [feature.column or ""]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} … {names[-1]} ({len(names)})"


def _unfed(spec: TensorSpec, schema: pa.Schema, model: ModelSignature, job: JobFile) -> Problem:
    columns = [f"{f.name} {f.type}" for f in schema]
    shown = ", ".join(columns[:12]) + (f" … ({len(columns)} columns)" if len(columns) > 12 else "")
    path = next(iter(job.job.named_models.values())).path
    return Problem(
        f'model input "{spec.name}" has no feature, and no column matches it unambiguously',
        {"job": job.where("features"), "model": str(spec), "columns": shown or "none"},
        f"add features.{spec.name}, or have it written: batchonnx init {path} DATA",
    )


def _matched_loses(spec: TensorSpec, feature: Feature, schema: pa.Schema, job: JobFile) -> Problem:
    names = feature.columns or [feature.column or ""]
    losing = [n for n in names if cast_price(column_shape(schema.field(n).type).value, spec.dtype) == "loses"]
    key = f"columns: [{', '.join(names)}]" if feature.columns else f"column: {names[0]}"
    return Problem(
        f'model input "{spec.name}" would lose integers of column "{losing[0]}"',
        {
            "job": job.where("features"),
            "model": str(spec),
            "found": ", ".join(f"{n} {schema.field(n).type}" for n in losing[:8]),
        },
        f"if that is meant, say so: features: {{{spec.name}: {{{key}, cast: true}}}}",
    )


def _bind(
    name: str,
    feature: Feature,
    job: JobFile,
    specs: Mapping[str, TensorSpec],
    schema: pa.Schema,
    bound: Bound,
) -> FeatureBinding:
    where = f"features.{name}"
    if feature.python is not None:
        return _bind_hook(name, feature, job, specs, schema)
    spec = _input_of(name, job, specs, where)
    if spec.kind != "tensor":
        raise _Mismatch(
            Problem(
                f'model input "{name}" is no tensor',
                {"job": job.where(where), "model": str(spec)},
                "export the model with tensor inputs",
            )
        )
    if feature.value is not None:
        return _bind_constant(spec, feature, job, where)
    names = feature.columns or [feature.column or ""]
    for column in names:
        _require_column(column, schema, job, where)
    wanted = _row_shape(spec, feature, job, where)
    if feature.tokenizer is not None:
        return bind_text(spec, feature, job, schema, specs, wanted)
    if feature.bytes is not None:
        return _bind_bytes(spec, feature, job, schema, wanted, where)
    if feature.image is not None:
        return bind_image(spec, feature, job, schema.field(names[0]).type, wanted)
    if feature.audio is not None:
        return bind_audio(spec, feature, job, schema.field(names[0]).type, wanted)
    _check_casts(spec, feature, names, schema, job, where, bound)
    _check_fill(spec, feature, job, where)
    is_stack = feature.columns is not None or not column_shape(schema.field(names[0]).type).shape
    if is_stack:
        shape = _stack_shape(spec, names, schema, wanted, job, where)
        return StackedScalars(spec, tuple(names), shape, feature.fill, feature.cast, feature.batch_axis)
    shape = _tensor_shape(spec, names[0], schema, wanted, job, where)
    return TensorColumn(spec, names[0], shape, feature.fill, feature.cast, feature.batch_axis)


def _input_of(name: str, job: JobFile, specs: Mapping[str, TensorSpec], where: str) -> TensorSpec:
    if name in specs:
        return specs[name]
    near = get_close_matches(name, specs, 1)
    fix = f'did you mean "{near[0]}"?' if near else "name one of the model's inputs"
    facts = {"job": job.where(where), "model": ", ".join(map(str, specs.values())) or "no inputs"}
    raise _Mismatch(Problem(f'the model has no input "{name}"', facts, fix))


def _require_column(column: str, schema: pa.Schema, job: JobFile, where: str) -> None:
    if column in schema.names:
        return
    facts = {"job": job.where(where), "columns": _shown(schema.names)}
    near = get_close_matches(column, schema.names, 1)
    fix = f'did you mean "{near[0]}"?' if near else "name a column that the input has"
    raise _Mismatch(Problem(f'the input has no column "{column}"', facts, fix))


def _shown(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} … ({len(names)} columns)"


def _row_shape(spec: TensorSpec, feature: Feature, job: JobFile, where: str) -> RowShape | None:
    """What the model wants for one row, `shape` of the job taken in; None: any rank."""
    declared: RowShape | None = None
    if spec.shape is not None:
        if feature.batch_axis >= max(len(spec.shape), 1):
            facts = {"job": job.where(f"{where}.batch_axis"), "model": str(spec)}
            fix = "name an axis that the input has, counted from 0"
            raise _Mismatch(
                Problem(f'model input "{spec.name}" has no axis {feature.batch_axis}', facts, fix)
            )
        if not spec.shape:
            facts = {"job": job.where(where), "model": str(spec)}
            fix = f"give it the same value for every row: {where}.value"
            raise _Mismatch(Problem(f'model input "{spec.name}" is one scalar, it takes no rows', facts, fix))
        dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
        del dims[feature.batch_axis]
        declared = tuple(dims)
    if feature.shape is None:
        return declared
    given = tuple(feature.shape)
    if declared is not None and not _compatible(given, declared):
        facts = {"job": job.where(f"{where}.shape"), "model": str(spec), "found": str(list(given))}
        raise _Mismatch(
            Problem(f'shape of feature "{spec.name}" isn\'t what the model wants', facts, "correct the shape")
        )
    return given


def _compatible(found: RowShape, wanted: RowShape) -> bool:
    return len(found) == len(wanted) and all(
        a == b or a is None or b is None for a, b in zip(found, wanted, strict=True)
    )


def _check_casts(
    spec: TensorSpec,
    feature: Feature,
    names: list[str],
    schema: pa.Schema,
    job: JobFile,
    where: str,
    bound: Bound,
) -> None:
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
            raise _Mismatch(
                Problem(f'column "{name}" can\'t become {spec.dtype} for "{spec.name}"', facts, fix)
            )
        if price == "loses" and not feature.cast:
            fix = f"if that is meant, say so: {where}.cast: true"
            raise _Mismatch(Problem(f'column "{name}" would lose integers as {spec.dtype}', facts, fix))
        if price == "narrows":
            narrowed.append(f"{name} ({value})")
    if narrowed:
        shown = ", ".join(narrowed[:3]) + (f" … ({len(narrowed)} columns)" if len(narrowed) > 3 else "")
        bound.notes.append(f'feature "{spec.name}" narrows to {spec.dtype}: {shown}')


def _check_fill(spec: TensorSpec, feature: Feature, job: JobFile, where: str) -> None:
    if feature.fill is None:
        return
    try:
        exact_value(feature.fill, spec.dtype)
    except ValueError as error:
        facts = {"job": job.where(f"{where}.fill"), "model": str(spec), "found": f"{feature.fill!r}: {error}"}
        title = f'fill of "{spec.name}" is no {spec.dtype}'
        raise _Mismatch(Problem(title, facts, "name a value that the model input can have")) from error


def _stack_shape(
    spec: TensorSpec, names: list[str], schema: pa.Schema, wanted: RowShape | None, job: JobFile, where: str
) -> RowShape:
    for name in names:
        if column_shape(schema.field(name).type).shape:
            facts = {"job": job.where(where), "found": f"column {name} {schema.field(name).type}"}
            fix = f"one list column is a tensor by itself: {where}.column: {name}"
            raise _Mismatch(Problem(f'column "{name}" is no scalar, so it can\'t be stacked', facts, fix))
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
        "found": f"{width} column{'s' * (width != 1)}: {_shown(names)}",
    }
    fix = (
        "add the missing columns"
        if isinstance(wants, int) and wants > width
        else "take the columns that the model was trained on"
    )
    raise _Mismatch(Problem(f'feature "{spec.name}" is {width} wide, the model wants {wants}', facts, fix))


def _tensor_shape(
    spec: TensorSpec, column: str, schema: pa.Schema, wanted: RowShape | None, job: JobFile, where: str
) -> RowShape:
    found = column_shape(schema.field(column).type).shape
    if wanted is None:
        return found
    if _compatible(found, wanted):
        return tuple(a if b is None else b for a, b in zip(found, wanted, strict=True))
    fixed = [dim for dim in wanted if dim is not None]
    is_flat_view = len(found) == 1 and len(fixed) == len(wanted) and found[0] in (None, prod(fixed))
    if is_flat_view:
        return wanted
    facts = {
        "job": job.where(f"{where}.column"),
        "model": str(spec),
        "expected": f"{_dims(wanted)} a row",
        "found": f"{_dims(found)} a row: column {column} {schema.field(column).type}",
    }
    fix = f"take the column that the model was trained on, or say how a flat list is shaped: {where}.shape"
    raise _Mismatch(
        Problem(f'column "{column}" doesn\'t have the shape of model input "{spec.name}"', facts, fix)
    )


def _dims(shape: RowShape) -> str:
    return "[" + ", ".join("any" if dim is None else str(dim) for dim in shape) + "]"


def _bind_bytes(
    spec: TensorSpec, feature: Feature, job: JobFile, schema: pa.Schema, wanted: RowShape | None, where: str
) -> BytesColumn:
    assert feature.bytes is not None
    assert feature.column is not None
    arrow_type = schema.field(feature.column).type
    facts = {"job": job.where(where), "model": str(spec), "found": f"column {feature.column} {arrow_type}"}
    if not is_binary(arrow_type) and not is_text(arrow_type):
        raise _Mismatch(Problem(f'column "{feature.column}" has no bytes', facts, "name a binary column"))
    width = feature.bytes.head + feature.bytes.tail
    if wanted is not None and not _compatible((width,), wanted):
        facts["found"] = f"head + tail = {width}"
        fix = "make head + tail what the model wants"
        raise _Mismatch(
            Problem(f'feature "{spec.name}" is {width} wide, the model wants {_dims(wanted)}', facts, fix)
        )
    try:
        limits = np.iinfo(np.dtype(spec.dtype))
    except (TypeError, ValueError):
        raise _Mismatch(
            Problem(f'bytes need an integer input, "{spec.name}" is none', facts, "leave out `bytes`")
        ) from None
    if not limits.min <= feature.bytes.pad <= limits.max or limits.max < 255:
        facts["expected"] = f"{limits.min} to {limits.max}"
        raise _Mismatch(
            Problem(f"pad or byte values don't fit {spec.dtype}", facts, f"change {where}.bytes.pad")
        )
    return BytesColumn(spec, feature.column, feature.bytes, feature.batch_axis)


def _bind_constant(spec: TensorSpec, feature: Feature, job: JobFile, where: str) -> Constant:
    facts = {"job": job.where(f"{where}.value"), "model": str(spec), "found": repr(feature.value)[:80]}
    try:
        exact = exact_value(feature.value, spec.dtype)
    except (TypeError, ValueError) as error:
        fix = f"give a {spec.dtype} or a list of them"
        raise _Mismatch(
            Problem(f'value of "{spec.name}" is no {spec.dtype} ({error})', facts, fix)
        ) from error
    if spec.shape is None:
        return Constant(spec, exact, per_row=False)
    dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
    if _compatible(exact.shape, tuple(dims)) and not (
        exact.ndim and feature.batch_axis < len(dims) and dims[feature.batch_axis] is None
    ):
        return Constant(spec, exact, per_row=False)
    if dims and feature.batch_axis < len(dims):
        row = [*dims]
        del row[feature.batch_axis]
        if _compatible(exact.shape, tuple(row)):
            return Constant(spec, exact, per_row=True, batch_axis=feature.batch_axis)
        if exact.shape == () and all(dim is not None for dim in row):
            full = np.full([dim for dim in row if dim is not None], exact, dtype=exact.dtype)
            return Constant(spec, full, per_row=True, batch_axis=feature.batch_axis)
    facts["found"] = f"shape {list(exact.shape)}"
    fix = "give a value of the whole input's shape, or of one row's"
    raise _Mismatch(Problem(f"value of \"{spec.name}\" doesn't have the input's shape", facts, fix))


def _bind_hook(
    name: str, feature: Feature, job: JobFile, specs: Mapping[str, TensorSpec], schema: pa.Schema
) -> HookFeature:
    where = f"features.{name}"
    assert feature.python is not None
    inputs = tuple(_input_of(n, job, specs, where) for n in feature.inputs or [name])
    for column in feature.columns or []:
        _require_column(column, schema, job, where)
    load_hook(feature.python, job.folder, job.where(f"{where}.python"))
    shapes = tuple(_row_shape(spec, feature, job, where) for spec in inputs)
    return HookFeature(name, inputs, tuple(feature.columns or ()), feature.python, shapes, feature.batch_axis)


def feature_columns(binding: FeatureBinding) -> Iterator[str]:
    """The input columns that a feature reads."""
    if isinstance(binding, StackedScalars | HookFeature | TextColumn):
        yield from binding.columns
    elif isinstance(binding, TensorColumn | BytesColumn | ImageColumn | AudioColumn):
        yield binding.column
