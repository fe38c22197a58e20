"""Rows that take different ways through a model of trees: drawn between its own thresholds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx

from batchonnx.lifecycle.feed import GivenRows
from batchonnx.runtime.graph import all_nodes

ROWS = 512


def rows_between(model: onnx.ModelProto, name: str, width: int) -> GivenRows | None:
    """Seeded float32[ROWS, width] for the input `name`; None where the model has no trees.

    A value lies between two thresholds of its feature, or beyond the outermost, never on one: there a
    threshold of 64 bits, rounded to the 32 that ONNX has, may decide otherwise.
    """
    thresholds: dict[int, set[float]] = defaultdict(set)
    for feature, value in _splits(model):
        thresholds[feature].add(value)
    if not thresholds or max(thresholds) >= width:
        return None
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, width)).astype(np.float32)
    for feature, values in thresholds.items():
        steps = np.array(sorted(values), np.float64)
        edges = np.concatenate([[steps[0] - 1], steps, [steps[-1] + 1]])
        between = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
        rows[:, feature] = rng.choice(between[~np.isin(between, steps.astype(np.float32))], ROWS)
    return GivenRows({name: rows}, "values between the trees' own thresholds")


def _splits(model: onnx.ModelProto) -> Iterator[tuple[int, float]]:
    """Feature and threshold of each inner node."""
    for node in all_nodes(model):
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        told = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        modes = told.get("nodes_modes", [])
        for mode, feature, value in zip(
            modes, told.get("nodes_featureids", []), told.get("nodes_values", []), strict=False
        ):
            if mode != b"LEAF" and np.isfinite(value):
                yield int(feature), float(value)
