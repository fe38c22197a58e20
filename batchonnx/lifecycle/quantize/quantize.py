"""A model with smaller numbers, and what that costs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.gates import NOT_SLOWER, alike
from batchonnx.lifecycle.making import Built, Recipe, Trial, make_model, open_source
from batchonnx.lifecycle.provenance import tool_versions
from batchonnx.lifecycle.quantize import methods
from batchonnx.lifecycle.quantize.bench import Bench
from batchonnx.lifecycle.quantize.how import Quantization
from batchonnx.lifecycle.quantize.search import leave_worst
from batchonnx.lifecycle.tools import require_tools

MIN_COSINE, MAX_DIFF = 0.99, 0.05


def quantize(
    path: str, target: Path, how: Quantization | None = None, trial: Trial | None = None
) -> Comparison:
    """Make a model with smaller numbers of the one at `path`, and compare the two.

    Expected are a mean cosine of 0.99 between their outputs' rows (where no output has more than one value a
    row, a `max_diff` of 0.05) and a speed of 0.9 of the former's or better, unless the trial's gates say
    otherwise. "static" is compared on other rows of the job than those that it was calibrated on.
    See `make_model` for what is raised; ContractError if there are no rows to calibrate on or nothing to
    quantize, DependencyError if a tool isn't installed.
    """
    asked, tried = how or Quantization(), trial or Trial()
    if asked.method.startswith("weights"):
        require_tools("quantizing weights alone", "optimize", "onnx_ir")
    source = open_source(path)
    tried = tried.by_default(alike(source.contender.signature, MIN_COSINE, MAX_DIFF), NOT_SLOWER)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(source, asked, tried, Path(folder))
        recipe = Recipe(
            step="quantize",
            options=_told(asked),
            tools=tool_versions("onnx", "onnxruntime"),
            build=partial(_build, bench, target),
        )
        return make_model(source, target, recipe, bench.trial)


def _build(bench: Bench, target: Path, draft: Path) -> Built:
    left: Sequence[str] = leave_worst(bench, target) if bench.asked.search else ()
    bench.write(left, draft)
    if _operators(draft) == _operators(bench.prepared.path):
        raise bench.nothing()
    if not bench.asked.search:
        return Built(bench.notes)
    note = f"left in float32 by the search: {', '.join(left) or 'nothing'}"
    return Built([*bench.notes, note], {"left": list(left)})


def _operators(path: Path) -> list[str]:
    from batchonnx.runtime.graph import parse_model

    model = parse_model(path)
    assert model is not None
    return sorted(node.op_type for node in model.graph.node)


def _told(asked: Quantization) -> dict[str, object]:
    told = {name: value for name, value in asdict(asked).items() if value}
    if asked.method != "static":
        del told["calibration"], told["calibration_rows"]
    if asked.method.startswith("weights"):
        told.pop("per_channel", None)
        told["block"] = methods.BLOCK
    elif methods.narrows_weights():
        told["weight_bits"] = 7
    return told
