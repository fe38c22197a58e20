"""Columns of images: each batch decoded on the worker's own cores, into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import ImageColumn, Pixels
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode.blobs import Blobs, Undecodable

R = TypeVar("R")


def images_loader(
    feature: ImageColumn, threads: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]]:
    """chunk -> (start, stop) -> [n, c, h, w] or [n, h, w, c], decoded batch by batch.

    threads: how many decode at once: the worker's cores, which the model leaves alone meanwhile.
    """
    from batchonnx.scoring.encode.pixels import read_pixels

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

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        blobs = Blobs(chunk.column(feature.column), feature.encoded, feature.folder)

        def decode(data: memoryview | bytes | Undecodable) -> np.ndarray:
            if isinstance(data, Undecodable):
                raise data
            return read_pixels(data, want)

        def rows(start: int, stop: int) -> np.ndarray:
            given = blobs.rows(start, stop)
            if want.size is None:
                images = decode_each(decode, given, feature.column, start, threads)
                _require_alike(images, feature.column, start)
                batch = buffer(stop - start, images[0].shape)
                for row, values in zip(batch, images, strict=True):
                    write_values(values, want, row)
                return batch
            batch = buffer(stop - start, (*want.size, 1 if want.channels == "L" else 3))

            def into(place: int) -> None:
                write_values(decode(given[place]), want, batch[place])

            decode_each(into, range(stop - start), feature.column, start, threads)
            return batch

        return rows

    return load


def decode_each(
    decode: Callable[[Any], R], given: Sequence[Any], column: str, first: int, threads: int
) -> list[R]:
    """What becomes of each value, in order. first: row of the first one.

    Raises BadRow that names every value for which `decode` raises Undecodable.
    """
    results: dict[int, R] = {}
    reasons: dict[int, str] = {}

    def one(place: int) -> None:
        try:
            results[place] = decode(given[place])
        except Undecodable as reason:
            reasons[place] = str(reason)

    if threads > 1 and len(given) > 1:
        with ThreadPoolExecutor(min(threads, len(given))) as pool:
            list(pool.map(one, range(len(given))))
    else:
        for place in range(len(given)):
            one(place)
    if reasons:
        (place, reason), *others = sorted(reasons.items())
        raise BadRow(first + place, column, reason, lambda: ((first + p, why) for p, why in others))
    return [results[place] for place in range(len(given))]


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


def _require_alike(images: Sequence[np.ndarray], column: str, first: int) -> None:
    for place, values in enumerate(images):
        if values.shape != images[0].shape:
            height, width, _ = values.shape
            expected = f"{images[0].shape[1]} x {images[0].shape[0]} pixels like its neighbours"
            raise BadRow(first + place, column, f"{width} x {height} pixels, {expected}")
