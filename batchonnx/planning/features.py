"""The input half of the contract: each model input bound to columns, or a problem that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import pyarrow as pa

from batchonnx.errors import ContractError, HookError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import (
    TOKEN_INPUTS,
    AudioColumn,
    BytesColumn,
    FeatureBinding,
    HookFeature,
    ImageColumn,
    RowShape,
    StackedScalars,
    TensorColumn,
    TextColumn,
    fits,
    inputs_of,
)
from batchonnx.planning.bytes_window import bind_bytes
from batchonnx.planning.columns import bind_columns, shown
from batchonnx.planning.constants import bind_constant
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.images import bind_image
from batchonnx.planning.match import match_input
from batchonnx.planning.sounds import bind_audio
from batchonnx.planning.texts import bind_text
from batchonnx.planning.types import cast_price, column_shape
from batchonnx.runtime.signature import ModelSignature, TensorSpec


@dataclass
class Bound:
    """What came of binding: read it once all inputs have been looked at."""

    bindings: list[FeatureBinding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bind_features(job: JobFile, model: ModelSignature, schema: pa.Schema) -> Bound:
    """Bind every input of the model; collects all problems instead of raising."""
    bound = Bound()
    specs = {spec.name: spec for spec in model.inputs}
    fed = set(job.job.scan)
    for name, feature in (job.job.features or {}).items():
        try:
            binding = _bind(name, feature, job, specs, schema, bound)
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
        raise ContractError(
            Problem(
                f'model input "{name}" is no tensor',
                {"job": job.where(where), "model": str(spec)},
                "export the model with tensor inputs",
            )
        )
    if feature.value is not None:
        return bind_constant(spec, feature, job)
    names = feature.columns or [feature.column or ""]
    for column in names:
        _require_column(column, schema, job, where)
    wanted = _row_shape(spec, feature, job, where)
    if feature.tokenizer is not None:
        return bind_text(spec, feature, job, schema, specs, wanted)
    if feature.bytes is not None:
        return bind_bytes(spec, feature, job, schema.field(names[0]).type, wanted)
    if feature.image is not None:
        return bind_image(spec, feature, job, schema.field(names[0]).type, wanted)
    if feature.audio is not None:
        return bind_audio(spec, feature, job, schema.field(names[0]).type, wanted)
    return bind_columns(spec, feature, job, schema, wanted, bound.notes)


def _input_of(name: str, job: JobFile, specs: Mapping[str, TensorSpec], where: str) -> TensorSpec:
    if name in specs:
        return specs[name]
    near = get_close_matches(name, specs, 1)
    fix = f'did you mean "{near[0]}"?' if near else "name one of the model's inputs"
    facts = {"job": job.where(where), "model": ", ".join(map(str, specs.values())) or "no inputs"}
    raise ContractError(Problem(f'the model has no input "{name}"', facts, fix))


def _require_column(column: str, schema: pa.Schema, job: JobFile, where: str) -> None:
    if column in schema.names:
        return
    facts = {"job": job.where(where), "columns": shown(schema.names)}
    near = get_close_matches(column, schema.names, 1)
    fix = f'did you mean "{near[0]}"?' if near else "name a column that the input has"
    raise ContractError(Problem(f'the input has no column "{column}"', facts, fix))


def _row_shape(spec: TensorSpec, feature: Feature, job: JobFile, where: str) -> RowShape | None:
    """What the model wants for one row, `shape` of the job taken in; None: any rank."""
    declared: RowShape | None = None
    if spec.shape is not None:
        if feature.batch_axis >= max(len(spec.shape), 1):
            facts = {"job": job.where(f"{where}.batch_axis"), "model": str(spec)}
            fix = "name an axis that the input has, counted from 0"
            raise ContractError(
                Problem(f'model input "{spec.name}" has no axis {feature.batch_axis}', facts, fix)
            )
        if not spec.shape:
            facts = {"job": job.where(where), "model": str(spec)}
            fix = f"give it the same value for every row: {where}.value"
            raise ContractError(
                Problem(f'model input "{spec.name}" is one scalar, it takes no rows', facts, fix)
            )
        dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
        del dims[feature.batch_axis]
        declared = tuple(dims)
    if feature.shape is None:
        return declared
    given = tuple(feature.shape)
    if declared is not None and not fits(given, declared):
        facts = {"job": job.where(f"{where}.shape"), "model": str(spec), "found": str(list(given))}
        raise ContractError(
            Problem(f'shape of feature "{spec.name}" isn\'t what the model wants', facts, "correct the shape")
        )
    return given


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
