"""A worker's decoder: the model outputs of some batches to Arrow arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.output_types import row_shape
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.decode.boxes import Candidates, found_objects
from batchonnx.scoring.decode.classes import (
    best,
    labelled_places,
    labelled_top,
    ranked,
    sigmoid,
    softmax,
    thresholded,
)
from batchonnx.scoring.decode.hook import RemoteColumn, call_hook
from batchonnx.scoring.decode.maps import maps_to_matrix, maps_to_pairs
from batchonnx.scoring.decode.ragged import which_count
from batchonnx.scoring.decode.tensors import cut_rows, mean_of, to_arrow
from batchonnx.scoring.decode.vectors import normalized, packed
from batchonnx.scoring.frames import FRAMES
from batchonnx.scoring.windows import Ragged


class Decoder:
    """Carries out output bindings.

    hooks: output column -> function. fixed_batch: rows of every batch, where short ones are padded.

    model_outputs: what the columns are made of, each once: model outputs, and what is pooled of them (see
    `OutputBinding.key`); no others need be computed. model_inputs: what the encoder gave that is needed once
    more, to tell which of a row's values count or where an image was -> its axis that counts rows.
    """

    def __init__(
        self,
        outputs: Sequence[OutputBinding],
        hooks: Mapping[str, Callable[..., object] | RemoteColumn],
        fixed_batch: int | None = None,
    ) -> None:
        self._outputs, self._hooks, self._fixed_batch = outputs, hooks, fixed_batch
        keys = (binding.key(spec) for binding in outputs for spec in binding.sources)
        self.model_outputs = tuple(dict.fromkeys(keys))
        fed = [b for b in outputs if b.counted is not None and b.counted.is_fed]
        self.model_inputs = {b.counted.by.name: b.batch_axis for b in fed if b.counted is not None}
        if any(b.detection is not None and b.detection.in_image for b in outputs):
            self.model_inputs[FRAMES] = 0

    def decode(self, batches: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[pa.Array]:
        """One array of sum(rows) values for each output column.

        batches: model output -> what the session returned, batch by batch, and `model_inputs` as they were
        fed. rows: of each batch; what a padded batch has beyond them is cut off.
        Raises ContractError for an output without a row for each input row, HookError.
        """
        return [self._column(binding, batches, rows) for binding in self._outputs]

    def _column(
        self, binding: OutputBinding, batches: Sequence[Mapping[str, Any]], rows: Sequence[int]
    ) -> pa.Array:
        source = binding.value
        if binding.detection is not None:
            counted = zip(batches, rows, strict=True)
            return found_objects(binding, [self._candidates(binding, batch, n) for batch, n in counted])
        if binding.counted is not None:
            counted = zip(batches, rows, strict=True)
            return self._lists(binding, [self._that_count(binding, batch, n) for batch, n in counted])
        if binding.of_windows:
            counted = zip(batches, rows, strict=True)
            return self._lists(
                binding,
                [{k: batch[k].rows(n) for k in map(binding.key, binding.values)} for batch, n in counted],
            )
        if binding.is_placed:
            values, *places = (
                np.concatenate(self._scored_blocks(binding, spec, batches, rows)) for spec in binding.values
            )
            if not places:
                return labelled_places(values, binding.labels)
            assert binding.type is not None
            return labelled_top(values, places[0], binding.labels, binding.type)
        if binding.function is not None:
            hook = self._hooks[binding.name]
            batch_rows = zip(batches, rows, strict=True)
            cut = (
                [self._cut(binding, spec, batch[binding.key(spec)], count) for spec in binding.values]
                for batch, count in batch_rows
            )
            return call_hook(binding, hook, cut)
        if binding.source.kind == "maps":
            maps = [m for batch, count in zip(batches, rows, strict=True) for m in batch[source][:count]]
            if not _is_reduced(binding):
                scores, keys = maps_to_matrix(maps)
                return maps_to_pairs(binding, _scored(binding, scores), keys)
            scores, keys = maps_to_matrix(maps)
            return _reduce(binding, _scored(binding, scores), keys)
        blocks = self._scored_blocks(binding, binding.source, batches, rows)
        if binding.others:
            more = [self._scored_blocks(binding, spec, batches, rows) for spec in binding.others]
            blocks = [mean_of(binding, alike) for alike in zip(blocks, *more, strict=True)]
        if not _is_reduced(binding):
            return to_arrow(binding, blocks)
        return _reduce(binding, blocks[0] if len(blocks) == 1 else np.concatenate(blocks), None)

    def _lists(self, binding: OutputBinding, batches: Sequence[Mapping[str, Ragged]]) -> pa.Array:
        """A list for each row, of what becomes of each of its windows, or values that count."""
        value_type = binding.type.value_type if binding.type is not None else None
        inner = dataclasses.replace(binding, of_windows=False, counted=None, type=value_type, batch_axis=0)
        names = list(map(binding.key, binding.values))
        first = [batch[names[0]] for batch in batches]
        flat = [{name: batch[name].values for name in names} for batch in batches]
        values = self._column(inner, flat, [len(batch.values) for batch in first])
        lengths = np.concatenate([batch.lengths for batch in first])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)

    def _that_count(self, binding: OutputBinding, batch: Mapping[str, Any], rows: int) -> dict[str, Ragged]:
        """Of each output's [rows, n, …], the values that count, one behind the other."""
        found: dict[str, Ragged] = {}
        for spec in binding.values:
            block = self._rows_of(binding, spec, batch, rows)
            keep = self._counts(binding, spec, block, batch)
            found[spec.name] = Ragged(block[keep], keep.sum(axis=1))
        return found

    def _candidates(self, binding: OutputBinding, batch: Mapping[str, Any], rows: int) -> Candidates:
        """A detector's outputs for one batch."""
        asked = binding.detection
        assert asked is not None
        turn = partial(np.swapaxes, axis1=1, axis2=2) if asked.channels_first else np.asarray
        scores = self._rows_of(binding, binding.source, batch, rows)
        scores = _scored(binding, turn(scores) if scores.ndim == 3 else scores)
        keep = self._counts(binding, binding.source, scores, batch) if binding.counted is not None else None
        boxes = self._rows_of(binding, asked.boxes, batch, rows) if asked.boxes is not None else None
        classes = self._rows_of(binding, asked.classes, batch, rows) if asked.classes is not None else None
        frames = batch[FRAMES] if asked.in_image else None
        return Candidates(scores, turn(boxes) if boxes is not None else None, classes, keep, frames)

    def _counts(
        self, binding: OutputBinding, spec: TensorSpec, block: np.ndarray, batch: Mapping[str, Any]
    ) -> np.ndarray:
        """bool[rows, n]: which of a block's values count."""
        counted = binding.counted
        assert counted is not None
        by = self._rows_of(binding, counted.by, batch, len(block))
        return which_count(counted, by, spec, block)

    def _rows_of(
        self, binding: OutputBinding, spec: TensorSpec, batch: Mapping[str, Any], rows: int
    ) -> np.ndarray:
        """An output, or an input, of one batch: its rows first."""
        whole = dataclasses.replace(binding, source=spec, row_shape=None)
        return cut_rows(whole, np.asarray(batch[spec.name]), rows, self._fixed_batch)

    def _scored_blocks(
        self,
        binding: OutputBinding,
        spec: TensorSpec,
        batches: Sequence[Mapping[str, Any]],
        rows: Sequence[int],
    ) -> list[np.ndarray]:
        """Each batch's rows of one output; joined into one block where all batches are shaped alike."""
        values: list[np.ndarray] = [batch[binding.key(spec)] for batch in batches]
        if binding.batch_axis == 0 and all(
            value.ndim and value.shape == (count, *values[0].shape[1:])
            for value, count in zip(values, rows, strict=True)
        ):
            values, rows = [values[0] if len(values) == 1 else np.concatenate(values)], [sum(rows)]
        cut = (self._cut(binding, spec, v, count) for v, count in zip(values, rows, strict=True))
        return [_scored(binding, block) for block in cut]

    def _cut(self, binding: OutputBinding, spec: TensorSpec, value: Any, count: int) -> Any:
        if spec.kind == "maps":
            return value[:count]
        if spec is not binding.source:
            shape = row_shape(spec, binding.batch_axis)
            binding = dataclasses.replace(binding, source=spec, row_shape=shape)
        return cut_rows(binding, np.asarray(value), count, self._fixed_batch)


def _is_reduced(binding: OutputBinding) -> bool:
    """Whether a row's many values become one value, or a few."""
    picks = binding.index is not None or binding.argmax or binding.top_k is not None
    return picks or binding.threshold is not None


def _scored(binding: OutputBinding, values: np.ndarray) -> np.ndarray:
    if binding.softmax:
        return softmax(values)
    if binding.sigmoid:
        return sigmoid(values)
    if binding.normalize:
        values = normalized(values)
    return values if binding.precision is None else packed(values, binding.precision)


def _reduce(binding: OutputBinding, values: np.ndarray, keys: Sequence[object] | None) -> pa.Array:
    if binding.argmax:
        return best(values, binding.labels or keys)
    if binding.top_k is not None:
        assert binding.type is not None
        return ranked(values, binding.top_k, binding.labels or keys, binding.type)
    if binding.index is not None:
        values = values[:, binding.index]
    values = values.reshape(len(values))
    if binding.threshold is not None:
        return thresholded(values, binding.threshold, binding.labels)
    return pa.array(np.ascontiguousarray(values))
