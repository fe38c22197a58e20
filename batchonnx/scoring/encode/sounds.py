"""Columns of sounds: each batch decoded on the worker's own cores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import AudioColumn
from batchonnx.scoring.encode.blobs import Blobs, Undecodable, decode_each, require_alike
from batchonnx.scoring.windows import as_objects


def sounds_loader(
    feature: AudioColumn, threads: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]]:
    """chunk -> (start, stop) -> [n, samples] or [n, 1, samples], decoded batch by batch.

    With windows: object[n], each row's own [windows, samples]. threads: how many decode at once.
    """
    from batchonnx.scoring.encode.sound import cut, read_samples, windows

    want, dtype = feature.sound, np.dtype(feature.input.dtype)
    channel, length = (1,) * (len(feature.row_shape) - 1), feature.row_shape[-1]

    def decode(_: int, data: memoryview | bytes) -> np.ndarray:
        samples = read_samples(data, want).astype(dtype, copy=False)
        if want.window is not None:
            pieces = windows(samples, want)
            return pieces.reshape(len(pieces), *channel, pieces.shape[1]) if channel else pieces
        if want.samples is not None:
            samples = cut(samples, want.samples)
        if length not in (None, len(samples)):
            how = "audio.samples would cut it, or fill it up"
            raise Undecodable(f"{len(samples):,} samples, the model takes {length:,}: {how}")
        return samples.reshape(*channel, -1)

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], np.ndarray]:
        blobs = Blobs(chunk.column(feature.column), feature.encoded, feature.folder)

        def rows(start: int, stop: int) -> np.ndarray:
            found = decode_each(decode, blobs.rows(start, stop), feature.column, start, threads)
            if want.window is None:
                require_alike([samples.shape for samples in found], _samples, feature.column, start)
                return np.stack(found)
            return as_objects(found)

        return rows

    return load


def _samples(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]:,} samples"
