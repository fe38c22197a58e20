"""The output half of the contract: each column of predictions bound to a model output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from batchonnx.errors import BatchonnxError, ContractError, HookError, Problem
from batchonnx.job.spec import JobFile, Output
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.output_types import column_type, row_shape, validate
from batchonnx.planning.ragged import bind_counted, bind_detection
from batchonnx.runtime.signature import ModelSignature, TensorSpec
from batchonnx.storage.paths import open_input


@dataclass
class BoundOutputs:
    """What came of binding the outputs."""

    bindings: list[OutputBinding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bind_outputs(job: JobFile, model: ModelSignature, *, of_windows: bool = False) -> BoundOutputs:
    """Bind every output column; left out, each model output becomes a column of its own name.

    of_windows: the model is run over several windows of each row, so that a column holds lists. What is
    fed back as state, or to another model, is no column unless it is asked for.
    """
    bound = BoundOutputs()
    specs = {spec.name: spec for spec in model.outputs}
    wanted: dict[str, Output] = dict(job.job.outputs or {})
    if job.job.outputs is None:
        taken = {state.from_ for state in job.job.scan.values()}
        taken |= {source for member in model.members for source in member.sources.values()}
        for spec in model.outputs:
            if spec.name in taken:
                continue
            if spec.kind == "other":
                bound.notes.append(
                    f'model output "{spec.name}" is left out: {spec.dtype} has no Arrow column'
                )
            else:
                wanted[spec.name] = Output.model_validate({"from": spec.name})
    if not wanted:
        facts = {"job": job.where("outputs"), "model": ", ".join(map(str, model.outputs)) or "no outputs"}
        bound.problems.append(Problem("no output column is left", facts, "name an output of the model"))
    for name, output in wanted.items():
        binding = _bind(name, output, job, specs, model, bound, of_windows=of_windows)
        if binding is not None and of_windows and (binding.counted or binding.detection):
            facts = {"job": job.where(f"outputs.{name}"), "model": str(binding.source)}
            fix = "leave out mask, length and detect: the column is a list of windows already"
            bound.problems.append(Problem(f'column "{name}" would be lists of lists', facts, fix))
        elif binding is not None:
            bound.bindings.append(_listed(binding) if of_windows else binding)
    return bound


def _bind(
    name: str,
    output: Output,
    job: JobFile,
    specs: Mapping[str, TensorSpec],
    model: ModelSignature,
    bound: BoundOutputs,
    *,
    of_windows: bool,
) -> OutputBinding | None:
    where = f"outputs.{name}"
    missing = next((source for source in output.sources if source not in specs), None)
    if missing is not None:
        near = [name for name in specs if name.endswith(f".{missing}")] or get_close_matches(
            missing, specs, 1
        )
        facts = {"job": job.where(f"{where}.from"), "model": ", ".join(map(str, specs.values()))}
        fix = f'did you mean "{near[0]}"?' if near else "name one of the model's outputs"
        bound.problems.append(Problem(f'the model has no output "{missing}"', facts, fix))
        return None
    spec, *others = (specs[source] for source in output.sources)
    facts = {"job": job.where(where), "model": ", ".join(map(str, (spec, *others)))}
    if "other" in {one.kind for one in (spec, *others)}:
        fix = "leave it out; tensors and sequences of maps can be written"
        bound.problems.append(Problem(f'model output "{spec.name}" has no Arrow column', facts, fix))
        return None
    try:
        labels = _labels(output, job, where)
        if output.python is not None:
            load_hook(output.python, job.folder, job.where(f"{where}.python"))
        shape = row_shape(spec, output.batch_axis) if spec.kind == "tensor" else None
        counted = bind_counted(output, spec, model, facts)
        detection = bind_detection(output, spec, specs, facts, job) if output.detect else None
    except (ContractError, HookError, _LabelsError) as error:
        bound.problems.extend(error.problems)
        return None
    except ValueError as error:
        fix = "leave it out, or set batch_axis to the axis that counts rows"
        bound.problems.append(Problem(str(error), facts, fix))
        return None
    if output.pool is not None and (of_windows or output.batch_axis):
        facts["found"] = "windows" if of_windows else f"batch_axis: {output.batch_axis}"
        fix = "leave pool out, and pool in a function: python: module:function"
        bound.problems.append(Problem("pool takes [batch, tokens, k]", facts, fix))
        return None
    is_inner = output.pool is not None or (counted is not None and detection is None)
    binding = OutputBinding(
        name,
        spec,
        None,
        shape[1:] if is_inner and shape is not None else shape,
        pool=output.pool,
        normalize=output.normalize,
        precision=output.precision,
        softmax=output.softmax,
        sigmoid=output.sigmoid,
        index=output.index,
        argmax=output.argmax,
        top_k=output.top_k,
        threshold=output.threshold,
        labels=labels,
        function=output.python,
        batch_axis=output.batch_axis,
        others=tuple(others),
        counted=counted,
        detection=detection,
        explode=output.explode,
    )
    faults = validate(binding)
    for fault in faults:
        bound.problems.append(Problem(fault, facts, f"correct {where}"))
    return None if faults else dataclasses.replace(binding, type=column_type(binding))


def _listed(binding: OutputBinding) -> OutputBinding:
    """The same for each window of a row."""
    lists = pa.list_(binding.type) if binding.type is not None else None
    return dataclasses.replace(binding, type=lists, of_windows=True)


class _LabelsError(BatchonnxError):
    pass


def _labels(output: Output, job: JobFile, where: str) -> tuple[str, ...] | None:
    """The labels, read from their file: one a line, or a JSON list, or Hugging Face's id2label."""
    if output.labels is None or isinstance(output.labels, list):
        return tuple(output.labels) if output.labels is not None else None
    path = job.resolve(output.labels)
    facts = {"job": job.where(f"{where}.labels"), "file": path}
    try:
        with open_input(path) as file:
            text = bytes(file.read()).decode()
    except BatchonnxError as error:
        raise _LabelsError(
            Problem(f"can't read the labels: {error.problems[0].title}", facts, "correct the path")
        ) from error
    except UnicodeDecodeError as error:
        raise _LabelsError(
            Problem("the labels are no UTF-8 text", facts, "save the file as UTF-8")
        ) from error
    labels = _json_labels(text, facts) if path.endswith(".json") else _lines(text)
    if not labels:
        fix = "write a name on each line, or leave labels out"
        raise _LabelsError(Problem("the labels file is empty", facts, fix))
    return labels


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines())


def _json_labels(text: str, facts: Mapping[str, str]) -> tuple[str, ...]:
    try:
        content: Any = json.loads(text)
        if isinstance(content, dict):
            content = content.get("id2label", content)
        if isinstance(content, dict):
            content = [content[str(i)] for i in range(len(content))]
        if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
            raise TypeError("no list of text")
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        fix = 'make it a list of names, or {"0": name, "1": name, …}'
        raise _LabelsError(
            Problem(f"the labels file can't be understood ({error})", dict(facts), fix)
        ) from error
    return tuple(content)
