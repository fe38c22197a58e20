"""From one form of a model to another, and proof that it still says the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.convert.opset import to_opset
from batchonnx.lifecycle.convert.ort_format import write_ort
from batchonnx.lifecycle.fixed_shapes import Sizes, fix_shapes
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.making import Built, Recipe, Source, Trial, make_model, open_source
from batchonnx.lifecycle.provenance import tool_versions
from batchonnx.lifecycle.whole_model import load_whole, save_whole
from batchonnx.runtime.machine import cpu_kind

SAME = Gates(max_diff=1e-4)
"""Other kernels add up in another order; what is wrong is off by more."""


@dataclass(frozen=True)
class Form:
    """What a model shall be like; what isn't asked for stays as it is.

    fix: see `Sizes`. opset: of ONNX's own domain, up or down. weights: in the model's own file, or beside it.
    this_cpu: of a model in ONNX Runtime's format: as fast as it gets, on this kind of CPU alone.
    """

    fix: Sizes = field(default_factory=dict)
    opset: int | None = None
    weights: Literal["inside", "beside"] | None = None
    this_cpu: bool = False


def convert(path: str, target: Path, form: Form | None = None, trial: Trial | None = None) -> Comparison:
    """Write the model at `path` in another form, and compare the two.

    target: ends in .ort for ONNX Runtime's own format, beside which the list of its operators is written, for
    a build that has no others; anything else is ONNX.
    Answers are expected within 1e-4 (`max_diff`), and speed as it may be, unless the trial's gates say
    otherwise. See `make_model` for what is raised; ContractError for what can't be asked for.
    """
    asked, tried = form or Form(), trial or Trial()
    is_ort = target.suffix == ".ort"
    _require_sense(asked, is_ort, target)
    source = open_source(path)
    told = {name: value for name, value in asdict(asked).items() if value}
    if is_ort:
        told["format"] = "ort"
    if asked.this_cpu:
        told["cpu"] = cpu_kind()
    recipe = Recipe(
        step="convert",
        options=told,
        tools=tool_versions("onnx", "onnxruntime"),
        build=partial(_build, source, asked, is_ort),
    )
    return make_model(source, target, recipe, tried.by_default(SAME, None))


def _build(source: Source, asked: Form, is_ort: bool, draft: Path) -> Built:
    model = load_whole(source.file)
    if asked.opset is not None:
        model = to_opset(model, asked.opset, source.file)
    if asked.fix:
        fix_shapes(model, asked.fix, source.file)
    if is_ort:
        return Built(write_ort(model, draft, asked.this_cpu, source.file))
    stays_beside = bool(source.file.external) and asked.weights is None
    save_whole(model, draft, is_external=stays_beside or asked.weights == "beside")
    return Built()


def _require_sense(asked: Form, is_ort: bool, target: Path) -> None:
    title = fix = ""
    if is_ort and asked.weights is not None:
        title, fix = "ONNX Runtime's format is one file", "leave --weights out"
    elif asked.this_cpu and not is_ort:
        title = "an ONNX model is for any CPU"
        fix = "name a file that ends in .ort, or optimize it: batchonnx model optimize --graph all"
    elif not is_ort and asked == Form():
        title = "nothing is asked for: the model would stay as it is"
        fix = "name a file that ends in .ort, or say --opset N, --weights inside|beside or --fix NAME=N"
    if title:
        raise ContractError(Problem(title, {"target": str(target)}, fix))
