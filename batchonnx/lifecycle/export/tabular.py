"""What all models of tables share: an input of so many columns, its names, a batch that is called so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.draft import Request
from batchonnx.planning.match import FEATURE_NAMES
from batchonnx.runtime.signature import TensorSpec

BATCH = "batch"
MAX_DIFF = 1e-5
"""Sums of 32 bits against sums of 64."""

ML_OPSET = 3
OPSET = 21
"""The oldest ONNX Runtime that we support knows these; a converter's newest it may not."""


def one_matrix(request: Request, width: int) -> TensorSpec:
    """The model's only input: as asked for, else x float32[batch, width]. Raises ExportError."""
    if not request.inputs:
        return TensorSpec("x", "float32", (BATCH, width))
    (spec, *others) = request.inputs
    if (
        others
        or spec.shape is None
        or len(spec.shape) != 2
        or spec.shape[1] != width
        or spec.dtype != "float32"
    ):
        facts = {
            **request.facts,
            "found": ", ".join(map(str, request.inputs)),
            "expected": f"float32[{BATCH}, {width}]",
        }
        raise ExportError(
            Problem(
                "the model takes one matrix of its features",
                facts,
                "leave --input out, or correct it: --input-spec",
            )
        )
    return spec


def save(model: onnx.ModelProto, target: Path, names: Sequence[str], request: Request) -> None:
    """Write the model, with the axis of rows named and the names of its columns in its metadata.

    names: of the features, in order; what `plan` matches columns by. Empty: unknown.
    """
    for value in (*model.graph.input, *model.graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.shape.dim:
            # LightGBM's converter declares a single label, and ONNX Runtime warns at every batch.
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    rename_outputs(model, request)
    if names:
        model.metadata_props.add(key=FEATURE_NAMES, value=json.dumps(list(names), ensure_ascii=False))
    target.write_bytes(model.SerializeToString())


def rename_outputs(model: onnx.ModelProto, request: Request) -> None:
    """Call outputs as asked for. Raises ExportError if it has another number of them."""
    if not request.outputs:
        return
    old = [value.name for value in model.graph.output]
    if len(old) != len(request.outputs):
        facts = {**request.facts, "found": ", ".join(old), "asked for": ", ".join(request.outputs)}
        raise ExportError(
            Problem("the model has another number of outputs", facts, "name each: --output-name")
        )
    renamed = dict(zip(old, request.outputs, strict=True))
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            node.output[place] = renamed.get(name, name)
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    for value in model.graph.output:
        value.name = renamed[value.name]


def label_and_scores(
    scores: np.ndarray, outputs: Sequence[str], classes: Sequence[Any] | None = None
) -> list[np.ndarray]:
    """A classifier's answer from its probabilities: float[n] of the second class, or float[n, classes]."""
    matrix = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
    best = matrix.argmax(axis=1)
    labels = best if classes is None else np.asarray(classes)[best]
    return [labels, matrix][: len(outputs)]


def refused(error: Exception, request: Request) -> ExportError:
    """A converter's own words."""
    said = str(error).strip().splitlines() or [""]
    facts = {**request.facts, "found": f"{type(error).__name__}: {said[0]}"[:300]}
    fix = "export what this converter knows; a model in parts may be exported part by part"
    return ExportError(Problem("the model can't be converted", facts, fix))


def column(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor of [n, 1] as [n]."""
    return np.asarray(tensors[name]).reshape(-1)
