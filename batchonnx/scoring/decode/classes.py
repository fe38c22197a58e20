"""Scores to shares, best classes and yes or no. A row with a NaN has no best class: null."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(x - max) / sum over the last axis; float16 is computed and returned as float32."""
    wide = scores.astype(np.float32) if scores.dtype == np.float16 else scores
    with np.errstate(invalid="ignore"):
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), from the side that can't overflow; float16 becomes float32."""
    wide = scores.astype(np.float32) if scores.dtype == np.float16 else scores
    power = np.exp(-np.abs(wide))
    return np.asarray(np.where(wide >= 0, 1, power) / (1 + power), dtype=wide.dtype)


def best(scores: np.ndarray, labels: Sequence[object] | None) -> pa.Array:
    """The first largest of each row [n, k]: its label, or its position as int64."""
    places = scores.argmax(axis=1).astype(np.int64)
    missing = _has_nan(scores)
    if missing is not None:
        places[missing] = -1
    return labelled_places(places, labels)


def labelled_places(places: np.ndarray, labels: Sequence[object] | None) -> pa.Array:
    """int64[n], or the labels there; null where a place is -1."""
    missing = places < 0
    return _labelled(pa.array(places, mask=missing if missing.any() else None), labels)


def ranked(scores: np.ndarray, k: int, labels: Sequence[object] | None, arrow_type: pa.DataType) -> pa.Array:
    """The k largest of each row [n, c], best first, ties by position: list<struct<label, score>>."""
    k = min(k, scores.shape[1])
    # Sorted backwards from behind: stable by position, and no negation that the smallest integer breaks.
    order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :k]
    top = np.take_along_axis(scores, order, axis=1)
    missing = _has_nan(scores)
    if missing is not None:
        order[missing] = -1
    return labelled_top(top, order, labels, arrow_type)


def labelled_top(
    top: np.ndarray, order: np.ndarray, labels: Sequence[object] | None, arrow_type: pa.DataType
) -> pa.Array:
    """Scores and places [n, k], the best first: list<struct<label, score>>; null where places are -1."""
    k = top.shape[1]
    absent = (order < 0).any(axis=1)
    missing = absent if absent.any() else None
    # A label for every place, even of rows that become null.
    order = np.where(order < 0, 0, order) if missing is not None else order
    items = pa.StructArray.from_arrays(
        [_labelled(pa.array(order.ravel().astype(np.int64)), labels), pa.array(top.ravel())],
        fields=list(arrow_type.value_type),
    )
    offsets = np.arange(0, (len(top) + 1) * k, k, dtype=np.int32) if k else np.zeros(len(top) + 1, np.int32)
    mask = pa.array(missing) if missing is not None else None
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=arrow_type, mask=mask)


def thresholded(scores: np.ndarray, threshold: float, labels: Sequence[str] | None) -> pa.Array:
    """Whether each of [n] is at least the threshold, as bool or as the first or second label."""
    missing = _has_nan(scores)
    reached = scores >= threshold
    if labels is None:
        return pa.array(reached, mask=missing)
    return _labelled(pa.array(reached.astype(np.int64), mask=missing), labels)


def _has_nan(scores: np.ndarray) -> np.ndarray | None:
    if scores.dtype.kind != "f":
        return None
    found = np.isnan(scores)
    rows = found.any(axis=1) if scores.ndim == 2 else found
    return np.asarray(rows) if rows.any() else None


def _labelled(places: pa.Array, labels: Sequence[object] | None) -> pa.Array:
    return places if labels is None else pa.array(labels).take(places)
