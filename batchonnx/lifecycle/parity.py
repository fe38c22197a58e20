"""How far two models' answers to the same rows are apart, as figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TOP_K = 5
NEIGHBOUR_ROWS = 4096
"""Nearest rows are looked for among at most so many: the work grows with their square."""


@dataclass(frozen=True)
class Parity:
    """One output of two models, on the same rows.

    rows, values: compared. unlike: values that are NaN or infinite in one model alone, or infinite with
        another sign; the differences are those of the others.
    max_abs, mean_abs: of |a - b|. max_rel, mean_rel: of |a - b| / max(|a|, |b|), 0 where both are 0.
    max_diff: of |a - b| / (1 + |a|): the least d for which numpy.allclose(b, a, rtol=d, atol=d) holds.
    mean_cosine, min_cosine: of a row of a and the same row of b. None for rows of one value.
    label_agreement: share of rows whose largest value (whose value, where outputs are integers, text or
        booleans) is the same. None for floats of one value a row.
    rank_agreement: share of the places among each row's `top_k` largest values that hold the same class.
    neighbour_agreement: share of rows whose nearest other row, by cosine, is the same. None but for floats
    [n, k].
    """

    name: str
    rows: int
    values: int
    unlike: int = 0
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    mean_rel: float | None = None
    max_diff: float | None = None
    mean_cosine: float | None = None
    min_cosine: float | None = None
    label_agreement: float | None = None
    rank_agreement: float | None = None
    top_k: int | None = None
    neighbour_agreement: float | None = None


def measure_parity(name: str, a: np.ndarray, b: np.ndarray) -> Parity:
    """Compare what two models gave for the same rows.

    a, b: [n, ...] of one shape, rows first; numbers, booleans or text. Raises ValueError for two shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"{name}: {list(a.shape)} and {list(b.shape)}")
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    rows = len(a)
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        same = _same_rows(a.astype(object), b.astype(object))
        return Parity(name, rows, a.size, label_agreement=same)
    is_float = "f" in (a.dtype.kind, b.dtype.kind)
    wide_a, wide_b = (array.reshape(rows, -1).astype(np.float64) for array in (a, b))
    both = np.isfinite(wide_a) & np.isfinite(wide_b)
    alike = both | (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    figures = _differences(wide_a[both], wide_b[both])
    if is_float and wide_a.shape[1] > 1:
        figures |= _cosines(np.where(both, wide_a, 0.0), np.where(both, wide_b, 0.0))
        last_a, last_b = (array.reshape(-1, array.shape[-1]) for array in (a, b))
        if last_a.shape[1] > 1:
            figures |= _classes(last_a, last_b)
        if a.ndim == 2:
            figures["neighbour_agreement"] = _neighbours(wide_a, wide_b)
    elif not is_float:
        figures["label_agreement"] = _same_rows(a, b)
    return Parity(name, rows, a.size, int((~alike).sum()), **figures)


def _differences(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    if not a.size:
        return {}
    difference = np.abs(a - b)
    larger = np.maximum(np.abs(a), np.abs(b))
    relative = np.divide(difference, larger, out=np.zeros_like(difference), where=larger > 0)
    return {
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "max_rel": float(relative.max()),
        "mean_rel": float(relative.mean()),
        "max_diff": float((difference / (1.0 + np.abs(a))).max()),
    }


def _cosines(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Of rows; two rows of zeros point the same way, one alone points nowhere."""
    if not len(a):
        return {}
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("ij,ij->i", a, b)
    cosines = np.divide(products, lengths, out=(a == b).all(axis=1).astype(np.float64), where=lengths > 0)
    cosines = np.clip(cosines, -1.0, 1.0)
    return {"mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}


def _classes(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    if not len(a):
        return {}
    k = min(TOP_K, a.shape[1])
    places_a, places_b = (
        np.argsort(-array.astype(np.float64), axis=1, kind="stable")[:, :k] for array in (a, b)
    )
    same = places_a == places_b
    return {
        "label_agreement": float(same[:, 0].mean()),
        "rank_agreement": float(same.mean()),
        "top_k": k,
    }


def _same_rows(a: np.ndarray, b: np.ndarray) -> float | None:
    if not a.size:
        return None
    same = np.asarray(a == b).reshape(len(a), -1).all(axis=1)
    return float(same.mean())


def _neighbours(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    return float((_nearest(a[:NEIGHBOUR_ROWS]) == _nearest(b[:NEIGHBOUR_ROWS])).mean())


def _nearest(rows: np.ndarray) -> np.ndarray:
    """int[n]: of each row, the other one with the largest cosine."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1.0)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(axis=1))
