"""Sequences of maps, one map for each row, as scikit-learn's classifiers give by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import OutputBinding


def maps_to_matrix(maps: Sequence[Mapping[object, float]]) -> tuple[np.ndarray, list[object]]:
    """[n, k] float32 scores and the k keys, sorted; a key that a row hasn't is NaN."""
    keys = sorted({key for row in maps for key in row}, key=lambda key: (str(type(key)), key))
    scores = [[row.get(key, np.nan) for key in keys] for row in maps]
    return np.array(scores, np.float32).reshape(len(maps), len(keys)), keys


def maps_to_pairs(binding: OutputBinding, scores: np.ndarray, keys: Sequence[object]) -> pa.Array:
    """A map<key, score> for each row, keys sorted."""
    assert binding.type is not None
    offsets = np.arange(len(scores) + 1, dtype=np.int32) * np.int32(len(keys))
    repeated = pa.array(keys, binding.type.key_type).take(
        pa.array(np.tile(np.arange(len(keys)), len(scores)))
    )
    values = pa.array(np.ascontiguousarray(scores).reshape(-1), binding.type.item_type)
    return pa.MapArray.from_arrays(pa.array(offsets), repeated, values)
