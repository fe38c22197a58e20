"""`audio` and `scan`: sounds held against the model's input, and state against what carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Feature, JobFile, State
from batchonnx.planning.bindings import AudioColumn, FeatureBinding, RowShape, Sound, StateBinding
from batchonnx.planning.encoded import FLOATS, encoded_as, folder_of, require
from batchonnx.runtime.signature import ModelSignature, TensorSpec


def bind_audio(
    spec: TensorSpec, feature: Feature, job: JobFile, arrow_type: pa.DataType, wanted: RowShape | None
) -> AudioColumn:
    """Bind a column of sounds. wanted: the model's shape for one row; None: unknown rank.

    Raises ContractError for what doesn't fit together, DependencyError without the packages that decode.
    """
    assert feature.audio is not None
    assert feature.column is not None
    asked, where = feature.audio, f"features.{spec.name}"
    for module in ("soundfile", "soxr"):
        require(module, "audio", job.where(f"{where}.audio"))
    encoded = encoded_as(arrow_type, feature.column, job.where(f"{where}.column"))
    facts = {"job": job.where(f"{where}.audio"), "model": str(spec)}
    if spec.dtype not in FLOATS:
        facts["expected"] = ", ".join(FLOATS)
        fix = "export the model with such an input, or make the tensor in a function: python: module:function"
        raise ContractError(Problem(f'sounds can\'t become {spec.dtype} for "{spec.name}"', facts, fix))
    length = asked.samples or (asked.context + asked.window if asked.window is not None else None)
    shape = _call_shape(spec, wanted, length, facts, where)
    sound = Sound(
        rate=asked.rate,
        samples=asked.samples,
        window=asked.window,
        hop=asked.hop or asked.window or 0,
        context=asked.context,
        first_channel=asked.mono == "first",
        normalize=asked.normalize,
        max_seconds=asked.max_seconds,
    )
    folder = folder_of(asked.folder, job, f"{where}.audio.folder")
    return AudioColumn(spec, feature.column, encoded, folder, sound, shape, feature.batch_axis)


def _call_shape(
    spec: TensorSpec, wanted: RowShape | None, length: int | None, facts: dict[str, str], where: str
) -> RowShape:
    """(samples,) or (1, samples), as the model wants it; None: as long as the sound is."""
    if wanted is None:
        return (length,)
    if not (len(wanted) == 1 or (len(wanted) == 2 and wanted[0] in (1, None))):
        facts["expected"] = "[batch, samples] or [batch, 1, samples]"
        fix = "name the input that takes samples, or make the tensor in a function: python: module:function"
        raise ContractError(Problem(f'model input "{spec.name}" takes no sound', facts, fix))
    if length is not None and wanted[-1] not in (None, length):
        facts["found"] = f"{length} samples in one call"
        fix = f"correct {where}.audio: samples, or window and context"
        raise ContractError(Problem(f'model input "{spec.name}" takes {wanted[-1]} samples', facts, fix))
    last = length if length is not None else wanted[-1]
    return (last,) if len(wanted) == 1 else (1, last)


def windowed(features: Sequence[FeatureBinding]) -> AudioColumn | None:
    """The feature that has several windows for each row, if there is one."""
    return next((f for f in features if isinstance(f, AudioColumn) and f.sound.window is not None), None)


def bind_states(job: JobFile, model: ModelSignature) -> tuple[list[StateBinding], list[Problem]]:
    """Bind `scan`; collects all problems instead of raising."""
    bindings: list[StateBinding] = []
    problems: list[Problem] = []
    for name, state in job.job.scan.items():
        try:
            bindings.append(_bind_state(name, state, job, model))
        except ContractError as error:
            problems.extend(error.problems)
    asked = [f.audio.window for f in (job.job.features or {}).values() if f.audio is not None]
    windows = [window for window in asked if window is not None]
    if len(windows) > 1 or (job.job.scan and not windows):
        facts = {"job": job.where("scan" if not windows else "features")}
        facts |= {"expected": "one feature with a window", "found": f"{len(windows) or 'none'}"}
        title = (
            "scan runs over windows, and no feature has any" if not windows else "two features have windows"
        )
        problems.append(Problem(title, facts, "say how a row is cut: features.INPUT.audio.window"))
    return bindings, problems


def _bind_state(name: str, state: State, job: JobFile, model: ModelSignature) -> StateBinding:
    where = f"scan.{name}"
    spec = _named(name, {one.name: one for one in model.inputs}, "input", job.where(where))
    source = _named(
        state.from_, {one.name: one for one in model.outputs}, "output", job.where(f"{where}.from")
    )
    facts = {"job": job.where(where), "model": f"{spec}, {source}"}
    if name in (job.job.features or {}):
        fix = f"leave out features.{name}: it is fed by the model itself"
        raise ContractError(Problem(f'model input "{name}" is fed twice', facts, fix))
    if spec.dtype != source.dtype:
        fix = "name the output that holds this state"
        raise ContractError(Problem(f'"{source.name}" can\'t be fed back: it has another type', facts, fix))
    dims = list(spec.shape or ())
    is_open = [axis for axis, dim in enumerate(dims) if not isinstance(dim, int)]
    axis = state.batch_axis
    if axis is None:
        axis = is_open[0] if len(is_open) == 1 else -1
    if not 0 <= axis < len(dims) or set(is_open) - {axis}:
        facts["expected"] = "a shape in which nothing is open but the number of rows"
        fix = f"name the axis that counts rows: {where}.batch_axis"
        raise ContractError(Problem(f'the state "{name}" has no shape to begin with', facts, fix))
    shape = tuple(0 if at == axis else int(dim or 0) for at, dim in enumerate(dims))
    return StateBinding(spec, source, shape, axis)


def _named(name: str, specs: Mapping[str, TensorSpec], what: str, where: str) -> TensorSpec:
    if name in specs:
        return specs[name]
    near = get_close_matches(name, specs, 1)
    fix = f'did you mean "{near[0]}"?' if near else f"name one of the model's {what}s"
    facts = {"job": where, "model": ", ".join(map(str, specs.values())) or f"no {what}s"}
    raise ContractError(Problem(f'the model has no {what} "{name}"', facts, fix))
