"""A detector's candidates as objects: best class, least score, and of overlapping boxes the best.

Suppression is greedy, as ONNX's operator NonMaxSuppression defines it
(https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html): by falling score, a box is dropped if its
intersection with one that was kept, divided by their union, is more than `max_overlap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.bindings import Detection, OutputBinding
from batchonnx.scoring.frames import in_image, in_seen


@dataclass(frozen=True)
class Candidates:
    """What a detector says of some rows.

    scores: [rows, n] or [rows, n, classes]; without boxes, [rows, n, 4 + objectness + classes]. boxes:
    [rows, n, 4]. classes: [rows, n]. counted: bool[rows, n]; None: all. frames: [rows, 4, 2], where boxes are
    told in the pixels of images.
    """

    scores: np.ndarray
    boxes: np.ndarray | None
    classes: np.ndarray | None
    counted: np.ndarray | None
    frames: np.ndarray | None = None


@dataclass(frozen=True)
class _Objects:
    """row, label: int64[k], score: float32[k], corners: float32[k, 4]."""

    row: np.ndarray
    label: np.ndarray
    score: np.ndarray
    corners: np.ndarray


def found_objects(binding: OutputBinding, batches: Sequence[Candidates]) -> pa.Array:
    """A list for each row, of struct{label, score, x_min, y_min, x_max, y_max}, the best object first.

    Raises ContractError for outputs whose shapes don't go together.
    """
    assert binding.detection is not None
    assert binding.type is not None
    found = [_detect(binding, binding.detection, candidates) for candidates in batches]
    lengths = [np.bincount(o.row, minlength=len(c.scores)) for o, c in zip(found, batches, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
    label = pa.array(np.concatenate([objects.label for objects in found]))
    corners = np.concatenate([objects.corners for objects in found])
    columns = [
        label if binding.labels is None else pa.array(binding.labels).take(label),
        pa.array(np.concatenate([objects.score for objects in found])),
        *(pa.array(np.ascontiguousarray(corners[:, axis])) for axis in range(4)),
    ]
    items = pa.StructArray.from_arrays(columns, fields=list(binding.type.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=binding.type)


def _detect(binding: OutputBinding, asked: Detection, candidates: Candidates) -> _Objects:
    scores, boxes = candidates.scores, candidates.boxes
    if boxes is None:
        ahead = 5 if asked.objectness else 4
        _require(binding, scores.ndim == 3 and scores.shape[2] > ahead, scores, scores)
        boxes, scores = scores[:, :, :4], scores[:, :, ahead:] * (scores[:, :, 4:5] if ahead == 5 else 1)
    fits = boxes.ndim == 3 and boxes.shape[2] == 4 and scores.ndim in (2, 3)
    _require(binding, fits and boxes.shape[:2] == scores.shape[:2], scores, boxes)
    if scores.ndim == 3:
        label = scores.argmax(axis=2)
        best = np.take_along_axis(scores, label[:, :, None], axis=2)[:, :, 0]
    else:
        label, best = np.zeros(scores.shape, np.int64), scores
    if candidates.classes is not None:
        _require(binding, candidates.classes.shape == best.shape, best, candidates.classes)
        label = candidates.classes.astype(np.int64)
    is_good = best >= asked.min_score
    if candidates.counted is not None:
        is_good &= candidates.counted
    row, place = np.nonzero(is_good)
    label, score = label[row, place].astype(np.int64), best[row, place].astype(np.float32)
    names = binding.labels
    if names is not None and label.size and not 0 <= label.min() <= label.max() < len(names):
        facts = {"expected": f"0 to {len(names) - 1}", "found": f"{label.min()} to {label.max()}"}
        fix = f"correct outputs.{binding.name}.labels"
        raise ContractError(Problem("the detector knows classes that have no label", facts, fix))
    corners = _corners(boxes[row, place].astype(np.float32), asked.corners)
    order = np.lexsort((-score, row))
    kept = order[_survivors(row[order], label[order], corners[order], asked)]
    row, corners = row[kept], corners[kept]
    if candidates.frames is not None:
        # Last of all: what overlaps how much is the same in any pixels.
        corners = _told_in_image(corners, candidates.frames[row], asked.normalized)
    return _Objects(row, label[kept], score[kept], corners)


def _told_in_image(corners: np.ndarray, frames: np.ndarray, is_share: bool) -> np.ndarray:
    seen = in_seen(corners, frames) if is_share else corners
    return in_image(seen, frames).astype(np.float32)


def _corners(boxes: np.ndarray, kind: str) -> np.ndarray:
    """[k, 4]: x_min, y_min, x_max, y_max, whichever corners a model gives."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if kind == "center":
        first, second = first - second / 2, first + second / 2
    elif kind == "first":
        second = first + second
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def _survivors(row: np.ndarray, label: np.ndarray, corners: np.ndarray, asked: Detection) -> np.ndarray:
    """int64[k]: places of the boxes that are kept, in order. All are sorted by row, then by falling score.

    All rows' groups (of a row, or of a class of it) are gone through at once: in each round the best box
    that is left of every group is kept, and what it overlaps is dropped.
    """
    group = row if asked.across_classes else np.unique(np.stack([row, label]), axis=1, return_inverse=True)[1]
    alive = np.lexsort((np.arange(len(row)), group.reshape(-1)))
    group = group.reshape(-1)
    kept: list[np.ndarray] = []
    for _ in range(asked.most):
        if not alive.size:
            break
        of_alive = group[alive]
        is_best = np.concatenate([[True], of_alive[1:] != of_alive[:-1]])
        best = alive[is_best]
        kept.append(best)
        beside = best[np.cumsum(is_best) - 1]
        alive = alive[~is_best & ~(_overlap(corners[alive], corners[beside]) > asked.max_overlap)]
    chosen = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    of_row = row[chosen]
    begins = np.searchsorted(of_row, of_row)
    return np.asarray(chosen[np.arange(len(chosen)) - begins < asked.most])


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [k, 4] and [k, 4]; 0 where neither has an area."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(one[:, 2:] - one[:, :2], axis=1) + np.prod(other[:, 2:] - other[:, :2], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(shared / (areas - shared)))


def _require(binding: OutputBinding, holds: bool, scores: np.ndarray, other: np.ndarray) -> None:
    if not holds:
        facts = {
            "expected": "scores [batch, n] or [batch, n, classes], boxes [batch, n, 4], classes [batch, n]",
            "found": f"{list(scores.shape)} and {list(other.shape)}",
        }
        fix = f"correct outputs.{binding.name}.detect: boxes, classes, objectness, channels_first"
        raise ContractError(Problem("the detector's outputs don't go together", facts, fix))
