"""`mask`, `length` and `detect` of an output, held against the model: lists as long as each row wants."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Detect, JobFile, Output
from batchonnx.planning.bindings import Counted, Detection, OutputBinding
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec

Shape = tuple[Dim, ...]


def object_type(binding: OutputBinding) -> pa.DataType:
    """Of a column of objects."""
    label = pa.string() if binding.labels else pa.int64()
    names = ("score", "x_min", "y_min", "x_max", "y_max")
    return pa.list_(pa.struct([("label", label), *((name, pa.float32()) for name in names)]))


def bind_counted(
    output: Output, source: TensorSpec, model: ModelSignature, facts: Mapping[str, str]
) -> Counted | None:
    """What says which of a row's values count. facts: where. Raises ContractError."""
    name = output.mask or output.length
    if name is None:
        return None
    key = "mask" if output.mask is not None else "length"
    given, fed = ({spec.name: spec for spec in specs} for specs in (model.outputs, model.inputs))
    spec = given.get(name) or fed.get(name)
    if spec is None:
        near = get_close_matches(name, [*given, *fed], 1)
        fix = f'did you mean "{near[0]}"?' if near else "name an input or output of the model"
        raise ContractError(Problem(f'{key}: the model has no "{name}"', dict(facts), fix))
    told = {**facts, key: str(spec)}
    axis = output.batch_axis
    if spec.kind != "tensor" or spec.dtype == "string" or (key == "length" and spec.dtype == "bool"):
        fix = "name integers" if key == "length" else "name integers or booleans"
        raise ContractError(Problem(f'"{name}" doesn\'t say which values count', told, fix))
    if source.kind != "tensor" or (source.shape is not None and len(source.shape) < 2):
        fix = f"leave {key} out"
        raise ContractError(Problem(f'model output "{source.name}" has no list for each row', told, fix))
    ranks = (2,) if key == "mask" else (1, 2)
    row = _row(spec, axis)
    if row is not None and len(row) + 1 not in ranks:
        fix = "name a tensor [batch, n]" if key == "mask" else "name a tensor [batch]"
        raise ContractError(Problem(f'"{name}" has the wrong number of dimensions', told, fix))
    values = _row(source, axis)
    sizes = {row[0], values[0]} if key == "mask" and row and values else set()
    if len({size for size in sizes if isinstance(size, int)}) > 1:
        fix = "name the mask of these values"
        raise ContractError(Problem(f'"{name}" masks another number of values', told, fix))
    return Counted(spec, key == "length", is_fed=name not in given)


def bind_detection(
    output: Output,
    source: TensorSpec,
    specs: Mapping[str, TensorSpec],
    facts: Mapping[str, str],
    job: JobFile,
) -> Detection:
    """What makes objects of candidates. Raises ContractError."""
    asked = output.detect
    assert asked is not None
    beside = {key: getattr(asked, key) for key in ("boxes", "classes") if getattr(asked, key) is not None}
    for key, name in beside.items():
        if name not in specs:
            near = get_close_matches(name, specs, 1)
            fix = f'did you mean "{near[0]}"?' if near else "name one of the model's outputs"
            raise ContractError(Problem(f'detect.{key}: the model has no output "{name}"', dict(facts), fix))
    boxes, classes = (specs[beside[key]] if key in beside else None for key in ("boxes", "classes"))
    told = {**facts, **{key: str(specs[name]) for key, name in beside.items()}}
    for spec in (source, boxes):
        if spec is not None and (spec.kind != "tensor" or not spec.dtype.startswith("float")):
            raise ContractError(Problem(f'"{spec.name}" is no tensor of floats', told, "name another output"))
    ranks = [(source, (3,) if boxes is None else (2, 3)), (boxes, (3,)), (classes, (2,))]
    for spec, expected in ranks:
        if spec is not None and spec.shape is not None and len(spec.shape) not in expected:
            wants = " or ".join(map(str, expected))
            fix = "scores are [batch, n] or [batch, n, classes], boxes [batch, n, 4], classes [batch, n]"
            raise ContractError(Problem(f'"{spec.name}" needs {wants} dimensions', told, fix))
    holder, least = boxes or source, 4 if boxes is not None else 6 if asked.objectness else 5
    width = holder.shape[1 if asked.channels_first else 2] if holder.shape is not None else None
    if isinstance(width, int) and (width != least if boxes is not None else width < least):
        wanted = f"{least}" if boxes is not None else f"{least} or more"
        fix = "set channels_first where candidates lie along the last axis; correct boxes or objectness"
        title = f'"{holder.name}" has {width} values for each candidate, not {wanted}'
        raise ContractError(Problem(title, told, fix))
    return Detection(
        boxes,
        classes,
        corners=asked.corners,
        normalized=asked.normalized,
        in_image=_in_image(asked, job, facts),
        objectness=asked.objectness,
        channels_first=asked.channels_first,
        min_score=float(asked.min_score),
        max_overlap=float(asked.max_overlap),
        across_classes=asked.across_classes,
        most=asked.most,
    )


def _in_image(asked: Detect, job: JobFile, facts: Mapping[str, str]) -> bool:
    """Whether boxes are told in the pixels of the images that the job feeds."""
    images = [name for name, feature in (job.job.features or {}).items() if feature.image is not None]
    if asked.coordinates == "model" or (asked.coordinates is None and not images):
        if asked.normalized:
            told = {**facts, "found": "normalized, and boxes are told as the model gives them"}
            fix = "leave detect.normalized out"
            raise ContractError(Problem("normalized goes with the pixels of an image", told, fix))
        return False
    if len(images) != 1:
        told = {**facts, "expected": "one feature made of images", "found": ", ".join(images) or "none"}
        title = "boxes can't be told in the pixels of an image: "
        title += "it isn't clear of which one" if images else "no feature is made of images"
        raise ContractError(Problem(title, told, "set detect.coordinates: model"))
    return True


def _row(spec: TensorSpec, batch_axis: int) -> Shape | None:
    if spec.shape is None:
        return None
    return tuple(dim for axis, dim in enumerate(spec.shape) if axis != batch_axis)
