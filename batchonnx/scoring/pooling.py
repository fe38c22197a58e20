"""A vector for each token to one for each row, at once: what is left is many times smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Pool
from batchonnx.planning.bindings import OutputBinding, TextColumn

MASK = "attention_mask"

Run = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[Any]]


class Pooling:
    """Runs a model, and pools what it gives.

    outputs: the columns that are made. text: the feature that is tokenized, if there is one: where the model
    has no mask, its padding is told by its id.
    """

    def __init__(self, outputs: Iterable[OutputBinding], text: TextColumn | None, run: Run) -> None:
        self._bound = {binding.value: binding for binding in outputs if binding.pool is not None}
        self._text, self._run = text, run

    def run(self, names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
        """Model outputs and `OutputBinding.value`s in the order asked.

        Raises ContractError for an output of other tokens.
        """
        pooled_of = {name: binding.source.name for name, binding in self._bound.items()}
        sources = tuple(dict.fromkeys(pooled_of.get(name, name) for name in names))
        found = dict(zip(sources, self._run(sources, tensors), strict=True))
        mask = self._mask(tensors)
        bound = self._bound
        return [self._value(bound[name], found, mask) if name in bound else found[name] for name in names]

    def _value(self, binding: OutputBinding, found: Mapping[str, Any], mask: np.ndarray | None) -> Any:
        value = found[binding.source.name]
        assert binding.pool is not None
        if value.ndim != 3 or (mask is not None and value.shape[:2] != mask.shape):
            expected = "[batch, tokens, k]" if mask is None else f"{[*mask.shape, 'k']}, as the mask has them"
            facts = {"model": str(binding.source), "expected": expected, "found": str(list(value.shape))}
            fix = "pool an output that has a vector for each token, or leave pool out"
            raise ContractError(Problem(f'column "{binding.name}" can\'t be pooled', facts, fix))
        return pooled(value, mask, binding.pool)

    def _mask(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """bool[batch, tokens]; None: all tokens count."""
        if MASK in tensors:
            return np.asarray(tensors[MASK] != 0)
        if self._text is None or not self._text.lengths:
            return None
        return np.asarray(tensors[self._text.inputs[0].name] != self._text.pad_id)


def pooled(values: np.ndarray, mask: np.ndarray | None, pool: Pool) -> np.ndarray:
    """[n, t, k] -> [n, k], of the tokens that the mask has; float16 becomes float32."""
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    if mask is None:
        mask = np.ones(values.shape[:2], bool)
    if pool == "cls":
        return np.ascontiguousarray(wide[np.arange(len(wide)), mask.argmax(axis=1)])
    if pool == "last":
        return np.ascontiguousarray(
            wide[np.arange(len(wide)), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)]
        )
    counted = wide if mask.all() else np.where(mask[:, :, np.newaxis], wide, 0)
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.asarray(counted.sum(axis=1) / counts.astype(wide.dtype))
