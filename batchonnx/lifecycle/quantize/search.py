"""Which layers to leave as they are, so that the others can be quantized."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from batchonnx.errors import GateError, Problem
from batchonnx.lifecycle.compare import Comparison, compare
from batchonnx.lifecycle.contender import Contender, Values
from batchonnx.lifecycle.feed import JobRows, RandomRows, Rows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.making import draft_contender
from batchonnx.lifecycle.quantize.bench import Bench

Layer = TypeVar("Layer")

RANKING_ROWS = 32
"""Of a job, to see how far answers are off for one layer alone."""


def leave_worst(bench: Bench, target: Path) -> Sequence[str]:
    """Layers that have to stay as they are for the gates of answers to hold; none, if they hold anyway.

    target: names what is tried in errors. Raises GateError if all layers have to.
    """
    layers = [layer for layer in bench.prepared.layers if layer not in bench.excluded]
    known = _remembering(bench.source.contender)
    answers_only = replace(bench.trial.gates, min_speedup=None)

    def tried(excluded: Collection[str], rows: Rows | None, gates: Gates) -> Comparison:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / target.name
            bench.write(excluded, draft)
            made = draft_contender(draft, target, bench.source, "quantize")
            return compare(known, made, rows, gates=gates, sizes=(), outputs=bench.trial.outputs)

    def is_enough(excluded: Sequence[str]) -> bool:
        return tried(excluded, bench.trial.rows, answers_only).passed

    if is_enough(()):
        return ()
    rows = _few(bench.trial.rows)
    harm = {
        layer: _harm(tried([other for other in layers if other != layer], rows, Gates())) for layer in layers
    }
    ranked = sorted(layers, key=lambda layer: -harm[layer])
    # With all of them left out nothing is quantized, which proves nothing.
    found = fewest(ranked[:-1], is_enough)
    if found is None:
        facts = {"model": bench.source.file.path, "layers": f"{len(layers)}, one by one left in float32"}
        fix = "try another method, or widen the gate if that is good enough for the job"
        raise GateError(Problem("no part of the model can be quantized within the gates", facts, fix))
    return found


def fewest(ranked: Sequence[Layer], is_enough: Callable[[Sequence[Layer]], bool]) -> Sequence[Layer] | None:
    """The shortest beginning of `ranked` that is enough, of one at least; None if not even all are.

    ranked: the worst layers first. is_enough: asked about log2 of their number of beginnings, where more
    layers are never worse; else what is given is still one that is enough.
    """
    too_few, enough, step = 0, 0, 1
    while not (enough and is_enough(ranked[:enough])):
        if enough == len(ranked):
            return None
        too_few, enough, step = enough, min(enough + step, len(ranked)), step * 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(ranked[:middle]):
            enough = middle
        else:
            too_few = middle
    return ranked[:enough]


def _harm(found: Comparison) -> float:
    """How far answers are off, the outputs' own sizes counted out."""
    if not found.parity:
        return float("inf")
    return max(
        1 - one.mean_cosine if one.mean_cosine is not None else one.max_diff or 0.0 for one in found.parity
    )


def _few(rows: Rows | None) -> Rows | None:
    if isinstance(rows, (JobRows, RandomRows)):
        return replace(rows, count=min(rows.count, RANKING_ROWS))
    return rows


def _remembering(contender: Contender) -> Contender:
    """The same answers to the same rows, without asking the model again."""
    answers: dict[bytes, Values] = {}

    def run(tensors: Mapping[str, np.ndarray]) -> Values:
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            told = repr(tensor.tolist()).encode() if tensor.dtype == object else tensor.tobytes()
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + told)
        key = digest.digest()
        if key not in answers:
            answers[key] = contender.run(tensors)
        return answers[key]

    return replace(contender, run=run)
