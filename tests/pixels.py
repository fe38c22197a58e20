"""An image as it is: what tests change one thing of."""

from __future__ import annotations

from batchonnx.planning.bindings import Pixels

PLAIN = Pixels(
    size=None,
    resize="none",
    edge=None,
    resample="bilinear",
    channels="RGB",
    background=(255, 255, 255),
    border=(0, 0, 0),
    factor=None,
    offset=None,
    channels_first=False,
    upright=True,
    draft=False,
    max_pixels=1_000_000,
)
