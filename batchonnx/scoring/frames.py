"""Where an image lies in what the model sees of it, and the way of boxes from there back to the image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FRAMES = "frames of the images"
"""Beside an encoder's tensors: float64[n, 4, 2], each row's `Frame`. It is no input of the model."""


class Frame(NamedTuple):
    """A point (x, y) of an image lies at (x, y) * scale - corner in the model's input, in pixels.

    image: the image's width and height as they were read, upright where that is asked for. seen: of the
    model's input. corner: negative where the image has a border.
    """

    image: tuple[int, int]
    seen: tuple[int, int]
    scale: tuple[float, float]
    corner: tuple[float, float]


def in_image(corners: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Boxes in the pixels of their images, cut where an image ends.

    corners: [k, 4]: x_min, y_min, x_max, y_max in the pixels of the model's input. frames: [k, 4, 2].
    """
    image, _, scale, corner = frames.transpose(1, 0, 2)[:, :, np.newaxis]
    points = (corners.reshape(-1, 2, 2) + corner) / scale
    return np.asarray(np.clip(points, 0, image).reshape(-1, 4))


def in_seen(corners: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """[k, 4] of boxes that are shares of the model's input's width and height, in its pixels."""
    return np.asarray((corners.reshape(-1, 2, 2) * frames[:, 1, np.newaxis]).reshape(-1, 4))
