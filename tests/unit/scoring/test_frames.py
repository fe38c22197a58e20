"""A box in an image, seen by a model and told again in the image's own pixels, is where it was."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchonnx.planning.bindings import Pixels
from batchonnx.scoring.encode.pixels import read_image
from batchonnx.scoring.frames import in_image, in_seen
from tests import pixels
from tests.detector import Picture

PLAIN = dataclasses.replace(pixels.PLAIN, background=None, max_pixels=10_000_000)


@st.composite
def ways(draw: st.DrawFn) -> Pixels:
    resize = draw(st.sampled_from(["exact", "shortest", "letterbox", "none"]))
    sides = st.integers(40, 120)
    size = (draw(sides), draw(sides))
    if resize in ("shortest", "none") and draw(st.booleans()):
        size = None
    edge = draw(sides) if resize == "shortest" else None
    return dataclasses.replace(
        PLAIN, size=size, resize=resize, edge=edge, upright=draw(st.booleans()), draft=draw(st.booleans())
    )


def lit(values: np.ndarray) -> np.ndarray | None:
    """x_min, y_min, x_max, y_max of what is lighter than half."""
    bright = values[:, :, 0] > 127
    if not bright.any():
        return None
    xs, ys = np.flatnonzero(bright.any(0)), np.flatnonzero(bright.any(1))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float64)


@settings(max_examples=150, deadline=None)
@given(ways(), st.tuples(st.integers(20, 700), st.integers(20, 700)), st.integers(1, 8), st.data())
def test_a_box_comes_back_from_the_model_within_a_pixel(
    way: Pixels, size: tuple[int, int], orientation: int, data: Any
) -> None:
    width, height = size
    left, top = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    right, bottom = data.draw(st.integers(left + 8, width)), data.draw(st.integers(top + 8, height))
    turned = orientation if way.upright else 1
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    picture = Picture(size, (left, top, right, bottom))
    values, frame = read_image(picture.encoded(kind, turned), way)
    assert frame.image == (width, height)
    assert frame.seen == values.shape[1::-1]
    frames = np.array([frame], np.float64)
    everything = in_image(np.array([[0, 0, *frame.seen]], np.float64), frames)[0]
    low, high = everything[:2], everything[2:]
    expected = np.concatenate([np.clip(p, low, high) for p in ((left, top), (right, bottom))])
    pixel = 1 / np.array(frame.scale)  # of the model, in the image's own
    found = lit(values)
    if found is None:
        assert ((expected[2:] - expected[:2]) < 2 * pixel + 1).any(), "too little of it is seen"
        return
    told = in_image(found[np.newaxis], frames)[0]
    assert (np.abs(told - expected) <= np.tile(np.maximum(pixel, 1), 2) + 1e-9).all(), (told, expected)
    shares = found[np.newaxis] / np.tile(frame.seen, 2)
    np.testing.assert_allclose(in_image(in_seen(shares, frames), frames)[0], told, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_draft_whose_last_pixels_stand_for_less_is_where_the_image_is(orientation: int) -> None:
    data = Picture((409, 417), (40, 96, 200, 240)).encoded("JPEG", orientation)
    values, frame = read_image(data, dataclasses.replace(PLAIN, draft=True, resize="exact", size=(50, 50)))
    light = values[:, :, 0].astype(np.float64)
    center = [float((np.arange(50) + 0.5) @ light.sum(axis) / light.sum()) for axis in (0, 1)]
    found = in_image(np.array([[*center, *center]]), np.array([frame], np.float64))[0]
    np.testing.assert_allclose(found[:2], [120, 168], atol=1)


@pytest.mark.parametrize(
    ("size", "way", "box", "expected"),
    [
        # torchvision's `resize_boxes` and ultralytics' `scale_boxes` give the same.
        ((640, 480), {"resize": "exact", "size": (240, 160)}, [0, 0, 80, 120], [0, 0, 320, 240]),
        ((640, 480), {"resize": "letterbox", "size": (320, 320)}, [0, 40, 160, 160], [0, 0, 320, 240]),
        ((640, 480), {"resize": "letterbox", "size": (320, 320)}, [-9, 0, 330, 320], [0, 0, 640, 480]),
        (
            (640, 480),
            {"resize": "shortest", "edge": 240, "size": (240, 240)},
            [0, 0, 240, 240],
            [80, 0, 560, 480],
        ),
        ((30, 20), {"size": (10, 10)}, [0, 0, 10, 10], [10, 5, 20, 15]),
    ],
)
def test_boxes_are_told_as_other_tools_tell_them(
    size: tuple[int, int], way: dict[str, Any], box: list[float], expected: list[float]
) -> None:
    file = io.BytesIO()
    Image.new("L", size).save(file, "PNG")
    _, frame = read_image(file.getvalue(), dataclasses.replace(PLAIN, **way))
    found = in_image(np.array([box], np.float64), np.array([frame], np.float64))
    np.testing.assert_allclose(found[0], expected)
