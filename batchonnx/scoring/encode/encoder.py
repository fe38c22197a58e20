"""A worker's encoder: one small encoder for each binding, chosen once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import (
    AudioColumn,
    BytesColumn,
    Constant,
    FeatureBinding,
    HookFeature,
    ImageColumn,
    StackedScalars,
    TensorColumn,
    TextColumn,
)
from batchonnx.scoring.axes import move_batch_axis
from batchonnx.scoring.encode.bytes_window import load_bytes
from batchonnx.scoring.encode.constants import constant_slicer
from batchonnx.scoring.encode.hook import Function, RemoteHook, hook_slicer, remote_slicer
from batchonnx.scoring.encode.images import images_loader
from batchonnx.scoring.encode.scalars import scalars_loader
from batchonnx.scoring.encode.sounds import sounds_loader
from batchonnx.scoring.encode.tensors import tensor_rows
from batchonnx.scoring.encode.texts import texts_loader

Tensors = dict[str, np.ndarray]
Slicer = Callable[[int, int], Tensors]
"""(start, stop) -> model input -> C-contiguous array of these rows of a loaded chunk, the batch axis
as bound; and FRAMES where a feature is framed. Valid until the next call: buffers are used again."""

Loader = Callable[[pa.RecordBatch], Slicer]
"""What is best done once for a whole chunk, leaving slicing for each batch."""


class Encoder:
    """Carries out feature bindings; one for each worker thread, since it owns reused buffers.

    batch_rows: the longest batch. hooks: HookFeature.name -> function. threads: that may decode at once,
        between two calls of the model.
    """

    def __init__(
        self,
        features: Sequence[FeatureBinding],
        batch_rows: int,
        hooks: Mapping[str, Function | RemoteHook],
        threads: int = 1,
    ) -> None:
        self._loaders = [_loader(feature, batch_rows, hooks, threads) for feature in features]

    def load(self, chunk: pa.RecordBatch) -> Slicer:
        """Check and cast a chunk's columns. Raises BadRow for a row that can't be encoded."""
        slicers = [load(chunk) for load in self._loaders]
        if len(slicers) == 1:
            return slicers[0]
        return lambda start, stop: {k: v for slicer in slicers for k, v in slicer(start, stop).items()}


def _loader(
    feature: FeatureBinding,
    batch_rows: int,
    hooks: Mapping[str, Function | RemoteHook],
    threads: int,
) -> Loader:
    if isinstance(feature, HookFeature):
        hook = hooks[feature.name]
        return remote_slicer(feature, hook) if isinstance(hook, RemoteHook) else hook_slicer(feature, hook)
    if isinstance(feature, Constant):
        slicer = constant_slicer(feature)
        return lambda chunk: slicer
    if isinstance(feature, TextColumn):
        return texts_loader(feature, threads)
    if isinstance(feature, StackedScalars):
        return _named(feature, scalars_loader(feature, batch_rows))
    if isinstance(feature, TensorColumn):
        return _named(feature, lambda chunk: tensor_rows(feature, chunk))
    if isinstance(feature, ImageColumn):
        return images_loader(feature, threads)
    if isinstance(feature, AudioColumn):
        return _named(feature, sounds_loader(feature, threads))
    return _named(feature, lambda chunk: _rows_of(load_bytes(feature, chunk)))


def _rows_of(tensor: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: tensor[start:stop]


def _named(
    feature: StackedScalars | TensorColumn | BytesColumn | AudioColumn,
    load: Callable[[pa.RecordBatch], Callable[[int, int], np.ndarray]],
) -> Loader:
    """A loader of one tensor, its batch axis moved to where the model has it."""

    def loader(chunk: pa.RecordBatch) -> Slicer:
        rows = load(chunk)
        name, axis = feature.input.name, feature.batch_axis
        return lambda start, stop: {name: move_batch_axis(rows(start, stop), axis)}

    return loader
