"""Columns of images: each batch decoded on the worker's own cores, into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import ImageColumn, Pixels
from batchonnx.scoring.axes import move_batch_axis
from batchonnx.scoring.encode.blobs import Blobs, decode_each, require_alike
from batchonnx.scoring.frames import FRAMES, Frame


def images_loader(
    feature: ImageColumn, threads: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], dict[str, np.ndarray]]]:
    """chunk -> (start, stop) -> model input -> [n, c, h, w] or [n, h, w, c], decoded batch by batch.

    Beside it FRAMES, where the feature says so. threads: how many decode at once: the worker's cores, which
    the model leaves alone meanwhile.
    """
    from batchonnx.scoring.encode.pixels import read_image

    want = feature.pixels
    out = np.empty((0, 0, 0, 0), np.dtype(feature.input.dtype))

    def buffer(rows: int, shape: Sequence[int]) -> np.ndarray:
        """[rows, …]: images of one size are decoded into the same memory, batch after batch."""
        nonlocal out
        height, width, channels = shape
        row = (channels, height, width) if want.channels_first else (height, width, channels)
        if out.shape[1:] != row or len(out) < rows:
            out = np.empty((rows, *row), out.dtype)
        return out[:rows]

    def decoded(blobs: Blobs, start: int, stop: int) -> tuple[np.ndarray, list[Frame]]:
        each = partial(
            decode_each, given=blobs.rows(start, stop), column=feature.column, first=start, threads=threads
        )
        if want.size is None:
            images = each(lambda _, data: read_image(data, want))
            require_alike([values.shape for values, _ in images], _pixels, feature.column, start)
            batch = buffer(stop - start, images[0][0].shape)
            for row, (values, _) in zip(batch, images, strict=True):
                write_values(values, want, row)
            return batch, [frame for _, frame in images]
        batch = buffer(stop - start, (*want.size, 1 if want.channels == "L" else 3))

        def into(place: int, data: memoryview | bytes) -> Frame:
            values, frame = read_image(data, want)
            write_values(values, want, batch[place])
            return frame

        return batch, each(into)

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], dict[str, np.ndarray]]:
        blobs = Blobs(chunk.column(feature.column), feature.encoded, feature.folder)
        axis = feature.batch_axis

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            batch, frames = decoded(blobs, start, stop)
            tensors = {feature.input.name: move_batch_axis(batch, axis)}
            return tensors | {FRAMES: np.array(frames, np.float64)} if feature.is_framed else tensors

        return rows

    return load


def write_values(values: np.ndarray, want: Pixels, out: np.ndarray) -> None:
    """uint8[h, w, c] into one row of the model's input, scaled.

    Two passes without a copy between them, in float32, as frameworks do it.
    """
    if want.channels_first:
        values = values.transpose(2, 0, 1)
    if want.factor is None or want.offset is None:
        np.copyto(out, values)
        return
    shape = (-1, 1, 1) if want.channels_first else (-1,)
    wide = np.promote_types(out.dtype, np.float32)
    target = out if out.dtype == wide else np.empty(out.shape, wide)
    np.multiply(values, np.array(want.factor, wide).reshape(shape), out=target)
    np.add(target, np.array(want.offset, wide).reshape(shape), out=target)
    if target is not out:
        np.copyto(out, target, casting="same_kind")


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"
