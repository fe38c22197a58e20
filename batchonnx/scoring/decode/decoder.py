"""A worker's decoder: the model outputs of some batches to Arrow arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import OutputBinding
from batchonnx.scoring.decode.classes import best, ranked, sigmoid, softmax, thresholded
from batchonnx.scoring.decode.hook import call_hook
from batchonnx.scoring.decode.maps import maps_to_matrix, maps_to_pairs
from batchonnx.scoring.decode.tensors import cut_rows, to_arrow
from batchonnx.scoring.decode.vectors import normalized, packed
from batchonnx.scoring.windows import Ragged


class Decoder:
    """Carries out output bindings.

    hooks: output column -> function. fixed_batch: rows of every batch, where short ones are padded.

    model_outputs: what the columns are made of, each once: model outputs, and what is pooled of them (see
    `OutputBinding.value`); no others need be computed.
    """

    def __init__(
        self,
        outputs: Sequence[OutputBinding],
        hooks: Mapping[str, Callable[..., object]],
        fixed_batch: int | None = None,
    ) -> None:
        self._outputs, self._hooks, self._fixed_batch = outputs, hooks, fixed_batch
        self.model_outputs = tuple(dict.fromkeys(binding.value for binding in outputs))

    def decode(self, batches: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[pa.Array]:
        """One array of sum(rows) values for each output column.

        batches: model output -> what the session returned, batch by batch. rows: of each batch;
        what a padded batch has beyond them is cut off.
        Raises ContractError for an output without a row for each input row, HookError.
        """
        return [self._column(binding, batches, rows) for binding in self._outputs]

    def _column(
        self, binding: OutputBinding, batches: Sequence[Mapping[str, Any]], rows: Sequence[int]
    ) -> pa.Array:
        source = binding.value
        if binding.of_windows:
            return self._lists(
                binding, [batch[source].rows(count) for batch, count in zip(batches, rows, strict=True)]
            )
        if binding.function is not None:
            hook = self._hooks[binding.name]
            batch_rows = zip(batches, rows, strict=True)
            cut = (self._cut(binding, batch[source], count) for batch, count in batch_rows)
            return call_hook(binding, hook, cut)
        if binding.source.kind == "maps":
            maps = [m for batch, count in zip(batches, rows, strict=True) for m in batch[source][:count]]
            if not _is_reduced(binding):
                scores, keys = maps_to_matrix(maps)
                return maps_to_pairs(binding, _scored(binding, scores), keys)
            scores, keys = maps_to_matrix(maps)
            return _reduce(binding, scores, keys)
        blocks = self._blocks(binding, [batch[source] for batch in batches], rows)
        if not _is_reduced(binding):
            return to_arrow(binding, [_scored(binding, block) for block in blocks])
        return _reduce(binding, blocks[0] if len(blocks) == 1 else np.concatenate(blocks), None)

    def _lists(self, binding: OutputBinding, batches: Sequence[Ragged]) -> pa.Array:
        """A list for each row, of what becomes of each of its windows."""
        value_type = binding.type.value_type if binding.type is not None else None
        inner = dataclasses.replace(binding, of_windows=False, type=value_type, batch_axis=0)
        source = binding.value
        values = self._column(
            inner, [{source: batch.values} for batch in batches], [len(b.values) for b in batches]
        )
        lengths = np.concatenate([batch.lengths for batch in batches])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)

    def _blocks(
        self, binding: OutputBinding, values: list[np.ndarray], rows: Sequence[int]
    ) -> list[np.ndarray]:
        """Each batch's rows; joined into one block where all batches are shaped alike."""
        if binding.batch_axis == 0 and all(
            value.ndim and value.shape == (count, *values[0].shape[1:])
            for value, count in zip(values, rows, strict=True)
        ):
            values, rows = [values[0] if len(values) == 1 else np.concatenate(values)], [sum(rows)]
        return [self._cut(binding, value, count) for value, count in zip(values, rows, strict=True)]

    def _cut(self, binding: OutputBinding, value: Any, count: int) -> Any:
        if binding.source.kind == "maps":
            return value[:count]
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
    values = _scored(binding, values)
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
