"""A detector's boxes are told where people see them: in the image that was given, however it was fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchonnx import api
from batchonnx.errors import ContractError
from batchonnx.job.load import job_from_dict
from tests.detector import Picture, detector_job, pictures, save_detector, write_pictures

COUNT, BROKEN = 40, (7, 21, 22)
SIDES = ("x_min", "y_min", "x_max", "y_max")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_detector(tmp_path / "detector.onnx")
    write_pictures(tmp_path / "pictures.parquet", pictures(COUNT), BROKEN)
    return tmp_path


def _run(folder: Path, job: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    summary = api.run(job_from_dict(job | {"errors": {"max_bad_rows": len(BROKEN)}} | more, folder))
    assert summary.quarantined == len(BROKEN)
    return api.dataset(folder / "out").to_table().to_pylist()


def _seen(one: Picture, image: dict[str, Any]) -> np.ndarray | None:
    """What of a picture's rectangle the model sees, in the picture's pixels."""
    if one.box is None:
        return None
    low, high = np.zeros(2), np.array(one.size, float)
    if image["resize"] == "shortest":
        side = image["size"] * min(one.size) / image["edge"]
        low, high = (high - side) / 2, (high + side) / 2
    return np.concatenate([np.clip(one.box[:2], low, high), np.clip(one.box[2:], low, high)])


def _told(objects: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[one[side] for side in SIDES] for one in objects])


@pytest.mark.parametrize("is_share", [False, True])
@pytest.mark.parametrize(
    "image",
    [
        {"resize": "exact", "size": [128, 96]},
        {"resize": "letterbox", "size": 128, "border": [90, 90, 90]},
        {"resize": "shortest", "edge": 128, "size": 112, "draft": True},
    ],
    ids=lambda image: image["resize"],
)
def test_boxes_of_mixed_sizes_and_orientations_are_where_they_were_drawn(
    folder: Path, image: dict[str, Any], is_share: bool
) -> None:
    save_detector(folder / "detector.onnx", is_share=is_share)
    job = detector_job(**image)
    job["outputs"]["light"]["detect"] |= {"normalized": is_share, "min_score": 0.5}
    rows = _run(folder, job)
    good = [number for number in range(COUNT) if number not in BROKEN]
    assert [row["id"] for row in rows] == good
    for row, one in zip(rows, (pictures(COUNT)[n] for n in good), strict=True):
        expected = _seen(one, image)
        if expected is None:
            assert row["light"] == []
            continue
        pixel = max(one.size) / 96 + 1
        assert np.abs(_told(row["light"]) - expected).max() <= pixel, (row, one)
        assert row["light"][0]["label"] == "light"


def test_lines_of_an_exploded_detector_tell_the_same_and_can_be_scored_again(folder: Path) -> None:
    job = detector_job(resize="letterbox", size=64)
    rows = _run(folder, job)
    job["outputs"]["light"]["explode"] = True
    lines = _run(folder, job)
    told = [[line["id"], *(line[f"light_{side}"] for side in SIDES)] for line in lines]
    expected = []
    for row in rows:
        boxes = _told(row["light"]).tolist() or [[None] * 4]
        expected += [[row["id"], *box] for box in boxes]
    assert told == expected
    proof = api.verify(folder / "out", deep=True, rows=COUNT)
    assert proof.rescored
    assert proof.predicted == COUNT - len(BROKEN)


def test_a_model_of_a_fixed_batch_tells_the_same(folder: Path) -> None:
    job = detector_job(resize="exact", size=64)
    rows = _run(folder, job)
    model = folder / "detector.onnx"
    import onnx

    proto = onnx.load(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(proto, model)
    job["engine"] = {"workers": 1}
    assert _run(folder, job) == rows


def test_as_the_model_gives_them_where_that_is_asked_for(folder: Path) -> None:
    job = detector_job(resize="exact", size=64)
    told = _run(folder, job)
    job["outputs"]["light"]["detect"]["coordinates"] = "model"
    found = _run(folder, job)
    sizes = {number: one.size for number, one in enumerate(pictures(COUNT))}
    for row, seen in zip(told, found, strict=True):
        if seen["light"]:
            scale = np.tile(np.array(sizes[row["id"]]) / 64, 2)
            np.testing.assert_allclose(_told(row["light"]), _told(seen["light"]) * scale, rtol=1e-5)


@pytest.mark.parametrize(
    ("detect", "feature", "told"),
    [
        ({"coordinates": "image"}, {"column": "pixels"}, "no feature is made of images"),
        ({"normalized": True}, {"column": "pixels"}, "normalized goes with the pixels of an image"),
        (
            {"normalized": True, "coordinates": "model"},
            {"column": "image", "image": {"size": 8}},
            "normalized goes with the pixels of an image",
        ),
    ],
)
def test_what_can_not_be_told_in_an_image_is_said_by_plan(
    folder: Path, detect: dict[str, Any], feature: dict[str, Any], told: str
) -> None:
    job = detector_job()
    job["features"]["x"] = feature
    job["outputs"]["light"]["detect"] |= detect
    with pytest.raises(ContractError) as caught:
        api.plan(job_from_dict(job, folder))
    assert any(told in problem.title for problem in caught.value.problems), caught.value.problems
