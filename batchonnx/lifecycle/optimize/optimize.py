"""The passes over a model, in their order, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.fixed_shapes import Sizes, fix_shapes
from batchonnx.lifecycle.gates import NOT_SLOWER, Gates, alike
from batchonnx.lifecycle.making import Built, Recipe, Source, Trial, make_model, open_source
from batchonnx.lifecycle.optimize.fuse import fuse
from batchonnx.lifecycle.optimize.half import to_half
from batchonnx.lifecycle.optimize.saved_graph import save_graph
from batchonnx.lifecycle.optimize.simplify import simplify
from batchonnx.lifecycle.provenance import tool_versions
from batchonnx.lifecycle.whole_model import load_whole, save_whole
from batchonnx.runtime.machine import cpu_kind

FLOAT32 = Gates(max_diff=1e-3)
HALF_COSINE, HALF_DIFF = 0.999, 0.02


@dataclass(frozen=True)
class Passes:
    """What is done to a model, in this order; nothing asked for: it is simplified.

    fix: see `Sizes`. simplify: fold constants, drop what computes nothing.
    fuse: a kind of transformer whose blocks become one operator each ("bert", "gpt2", …). heads, hidden: its
        number of heads and hidden size; 0: found in the graph, which "bert" alone can.
    half: float16, inputs and outputs as they are. keep: operators or nodes that stay in float32.
    graph: save what ONNX Runtime makes of it at this level; "all" is for this kind of CPU alone.
    """

    fix: Sizes = field(default_factory=dict)
    simplify: bool = False
    fuse: str | None = None
    heads: int = 0
    hidden: int = 0
    half: bool = False
    keep: Sequence[str] = ()
    graph: Literal["basic", "extended", "all"] | None = None


def optimize(path: str, target: Path, passes: Passes | None = None, trial: Trial | None = None) -> Comparison:
    """Make a model that gives the same answers with less work, and compare it with the one at `path`.

    Its answers are expected within 1e-3 (`max_diff`), in half precision with a mean cosine of 0.999 (within
    0.02 where no output has more than one value a row), and its speed at 0.9 of the former's or better,
    unless the trial's gates say otherwise. See `make_model` for what is raised;
    DependencyError if a tool isn't installed, ContractError for names that aren't in the model.
    """
    asked, tried = passes or Passes(), trial or Trial()
    if not (asked.fix or asked.simplify or asked.fuse or asked.half or asked.graph):
        asked = Passes(simplify=True)
    source = open_source(path)
    told = {name: value for name, value in asdict(asked).items() if value}
    if asked.graph == "all":
        told["cpu"] = cpu_kind()
    recipe = Recipe(
        step="optimize",
        options=told,
        tools=tool_versions("onnx", "onnxruntime", *(["onnxslim"] if asked.simplify else [])),
        build=partial(_build, source, asked),
    )
    half = alike(source.contender.signature, HALF_COSINE, HALF_DIFF)
    tried = tried.by_default(half if asked.half else FLOAT32, NOT_SLOWER)
    return make_model(source, target, recipe, tried)


def _build(source: Source, asked: Passes, draft: Path) -> Built:
    file = source.file
    model = load_whole(file)
    if asked.fix:
        fix_shapes(model, asked.fix, file)
    if asked.simplify:
        model = simplify(model, file)
    if asked.fuse:
        model = fuse(model, asked.fuse, asked.heads, asked.hidden, file)
    if asked.half:
        model = to_half(model, asked.keep, file)
    save_whole(model, draft)
    del model
    return Built(save_graph(draft, asked.graph, file) if asked.graph else ())
