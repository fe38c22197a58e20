"""A detector that can be checked by eye: it finds the one light rectangle of an image, if there is one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import helper
from PIL import Image

from tests import models

ORIENTATION = 0x0112
_STORED: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF's orientation -> what an upright image becomes to be stored so."""


@dataclass(frozen=True)
class Picture:
    """A black image, as people see it, with a light rectangle: x_min, y_min, x_max, y_max."""

    size: tuple[int, int]
    box: tuple[int, int, int, int] | None

    def encoded(self, kind: str = "PNG", orientation: int = 1) -> bytes:
        """A file whose EXIF orientation shows this picture."""
        width, height = self.size
        values = np.zeros((height, width, 3), np.uint8)
        if self.box is not None:
            left, top, right, bottom = self.box
            values[top:bottom, left:right] = 255
        image, exif = Image.fromarray(values), Image.Exif()
        exif[ORIENTATION] = orientation
        if orientation in _STORED:
            image = image.transpose(_STORED[orientation])
        file = io.BytesIO()
        image.save(file, kind, exif=exif, quality=95)
        return file.getvalue()


def pictures(count: int) -> list[Picture]:
    """Of many sizes, the same each time; every fifth is black all over."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        width, height = (int(side) for side in rng.integers(40, 400, 2))
        left, top = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        right, bottom = (
            int(rng.integers(left + width // 4, width)),
            int(rng.integers(top + height // 4, height)),
        )
        found.append(Picture((width, height), (left, top, right, bottom) if number % 5 else None))
    return found


def save_detector(path: Path, size: Sequence[int | str] = ("h", "w"), *, is_share: bool = False) -> Path:
    """x float32[n, 3, h, w] -> boxes float32[n, 1, 4], with is_share of w and h; score float32[n, 1]."""
    nodes = []
    for name, axes, last in (("x", [1, 2], 3), ("y", [1, 3], 2)):
        nodes += [
            helper.make_node("ReduceMax", ["x"], [f"line_{name}"], axes=axes, keepdims=0),
            helper.make_node("Greater", [f"line_{name}", "half"], [f"is_{name}"]),
            helper.make_node("Cast", [f"is_{name}"], [f"lit_{name}"], to=1),
            helper.make_node("ArgMax", [f"lit_{name}"], [f"first_{name}"], axis=1),
            helper.make_node("ArgMax", [f"lit_{name}"], [f"last_{name}"], axis=1, select_last_index=1),
            helper.make_node("Add", [f"last_{name}", "one"], [f"end_{name}"]),
            helper.make_node("Shape", ["x"], [f"side_{name}"], start=last, end=last + 1),
        ]
    nodes += [
        helper.make_node("Concat", ["first_x", "first_y", "end_x", "end_y"], ["places"], axis=1),
        helper.make_node("Cast", ["places"], ["pixels"], to=1),
        helper.make_node("Unsqueeze", ["pixels", "axes"], ["in_pixels"]),
        helper.make_node("Concat", ["side_x", "side_y", "side_x", "side_y"], ["sides"], axis=0),
        helper.make_node("Cast", ["sides"], ["wide"], to=1),
        helper.make_node("Div" if is_share else "Identity", ["in_pixels", "wide"][: 1 + is_share], ["boxes"]),
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "axes"], ["score"]),
    ]
    weights = {"half": np.array(0.5, np.float32), "one": np.array([1]), "axes": np.array([1])}
    inputs = [models.value("x", "float32", ["n", 3, *size])]
    outputs = [models.value("boxes", "float32", ["n", 1, 4]), models.value("score", "float32", ["n", 1])]
    return models.save(path, nodes, inputs, outputs, weights)


def write_pictures(path: Path, found: Sequence[Picture], broken: Sequence[int] = ()) -> None:
    """Columns id and image: each picture in one of eight orientations; files of the broken ones end early."""
    data = [one.encoded("JPEG" if n % 3 == 0 else "PNG", 1 + n % 8) for n, one in enumerate(found)]
    for number in broken:
        data[number] = data[number][:60]
    pq.write_table(pa.table({"id": np.arange(len(found)), "image": data}), path, row_group_size=16)


def detector_job(**image: Any) -> dict[str, Any]:
    """For `detector.onnx` and `pictures.parquet` of the job's folder. image: how pictures are resized."""
    return {
        "model": {"path": "detector.onnx"},
        "input": {"path": "pictures.parquet"},
        "features": {"x": {"column": "image", "image": image}},
        "outputs": {"light": {"from": "score", "detect": {"boxes": "boxes"}, "labels": ["light"]}},
        "keep": ["id"],
        "engine": {"workers": 2, "batch_rows": 5},
        "output": {"path": "out", "overwrite": True},
    }
