"""Objects out of a detector's candidates: the same that ONNX's NonMaxSuppression keeps."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from batchonnx.errors import ContractError
from batchonnx.planning.bindings import Detection, OutputBinding
from batchonnx.planning.ragged import object_type
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.decode.boxes import Candidates, found_objects

MOST = 4


@cache
def _suppressor() -> onnxruntime.InferenceSession:
    """boxes [b, n, 4], scores [b, c, n], overlap, least score -> [k, 3]: row, class, place."""
    names = ["boxes", "scores", "most", "overlap", "least"]
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    shapes: list[list[Any]] = [["b", "n", 4], ["b", "c", "n"], [1], [1], [1]]
    told = zip(names, kinds, shapes, strict=True)
    inputs = [helper.make_tensor_value_info(*one) for one in told]
    node = helper.make_node("NonMaxSuppression", names, ["kept"], center_point_box=0)
    kept = helper.make_tensor_value_info("kept", TensorProto.INT64, ["k", 3])
    graph = helper.make_graph([node], "nms", inputs, [kept])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString())


def _binding(**asked: Any) -> OutputBinding:
    settings = {
        "boxes": None,
        "classes": None,
        "corners": "both",
        "normalized": False,
        "in_image": False,
        "objectness": False,
        "channels_first": False,
        "min_score": 0.25,
        "max_overlap": 0.5,
        "across_classes": False,
        "most": 300,
    }
    labels = asked.pop("labels", None)
    binding = OutputBinding(
        "objects",
        TensorSpec("scores", "float32", None),
        None,
        None,
        labels=labels,
        detection=Detection(**settings | asked),
    )
    return OutputBinding(**{**vars(binding), "type": object_type(binding)})


def _found(scores: Any, boxes: Any = None, classes: Any = None, **asked: Any) -> list[list[dict[str, Any]]]:
    arrays = [np.asarray(one, np.float32) if one is not None else None for one in (scores, boxes)]
    labels = np.asarray(classes) if classes is not None else None
    assert arrays[0] is not None
    return found_objects(_binding(**asked), [Candidates(arrays[0], arrays[1], labels, None)]).to_pylist()  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.floats(0.1, 0.9), st.integers(0, 2**31))
def test_the_boxes_that_are_kept_are_those_that_onnx_keeps(
    rows: int, count: int, classes: int, overlap: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (rows, count, 4)).astype(np.float32)
    boxes = np.concatenate([corners[..., :2], corners[..., :2] + corners[..., 2:]], 2)
    # Eighths, so that some scores are equal; one class a box has any: ours knows the best one only.
    best, label = rng.integers(1, 9, (rows, count)) / 8, rng.integers(0, classes, (rows, count))
    scores = np.where(np.arange(classes) == label[..., None], best[..., None], 0).astype(np.float32)
    told = [np.array([value], kind) for value, kind in ((count, "i8"), (overlap, "f4"), (0.2, "f4"))]
    feed = dict(zip(["boxes", "scores"], [boxes, scores.transpose(0, 2, 1)], strict=True))
    (kept,) = _suppressor().run(None, feed | dict(zip(["most", "overlap", "least"], told, strict=True)))
    expected = [
        sorted((int(c), float(best[row, n]), *boxes[row, n].tolist()) for r, c, n in kept if r == row)
        for row in range(rows)
    ]
    found = _found(scores, boxes, min_score=0.2, max_overlap=float(np.float32(overlap)))
    assert [sorted(tuple(one.values()) for one in row) for row in found] == expected
    assert all([o["score"] for o in row] == sorted((o["score"] for o in row), reverse=True) for row in found)
    few = _found(scores, boxes, min_score=0.2, max_overlap=float(np.float32(overlap)), most=2)
    assert few == [row[:2] for row in found]


BOX = [10, 20, 4, 6]  # center and size


@pytest.mark.parametrize(
    ("corners", "box"),
    [("both", [8, 17, 12, 23]), ("both", [12, 23, 8, 17]), ("center", BOX), ("first", [8, 17, 4, 6])],
)
def test_a_box_may_be_told_in_any_of_the_usual_ways(corners: str, box: list[int]) -> None:
    (row,) = _found([[0.9]], [[box]], corners=corners)
    assert [row[0][key] for key in ("x_min", "y_min", "x_max", "y_max")] == [8, 17, 12, 23]


def test_one_tensor_may_hold_boxes_objectness_and_scores() -> None:
    candidates = [[[*BOX, 0.5, 0.9, 0.2], [*BOX, 0.5, 0.2, 0.8], [*BOX, 0.1, 0.9, 0.9]]]
    asked: dict[str, Any] = {"corners": "center", "objectness": True, "labels": ("cat", "dog")}
    (row,) = _found(candidates, **asked)
    assert [(o["label"], round(o["score"], 3)) for o in row] == [("cat", 0.45), ("dog", 0.4)]
    (best,) = _found(candidates, across_classes=True, **asked)
    assert [o["label"] for o in best] == ["cat"]


def test_rows_without_objects_keep_their_place_and_no_score_is_no_object() -> None:
    box = [0, 0, 1, 1]
    found = _found([[0.9], [0.1], [np.nan], [0.3]], [[box]] * 4, [[3], [3], [3], [7]])
    assert [[o["label"] for o in row] for row in found] == [[3], [], [], [7]]


@pytest.mark.parametrize(
    ("scores", "boxes"), [(np.ones((1, 2)), np.ones((1, 3, 4))), (np.ones((1, 2, 4)), None)]
)
def test_outputs_that_do_not_go_together_are_told(scores: np.ndarray, boxes: np.ndarray | None) -> None:
    with pytest.raises(ContractError, match="don't go together"):
        _found(scores, boxes)


def test_a_class_without_a_label_is_told() -> None:
    with pytest.raises(ContractError) as caught:
        _found([[0.9]], [[BOX]], [[2]], labels=("cat", "dog"))
    assert caught.value.problems[0].facts["found"] == "2 to 2"
