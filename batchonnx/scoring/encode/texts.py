"""Tokens as the model's inputs: ids, mask, types and positions of a batch, padded to one length."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from batchonnx.planning.bindings import TextColumn
from batchonnx.planning.lattice import padded
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode.tokens import TOKENS, TYPES, token_counts, with_tokens


def texts_loader(
    feature: TextColumn, threads: int
) -> Callable[[pa.RecordBatch], Callable[[int, int], dict[str, np.ndarray]]]:
    """chunk -> (start, stop) -> model input -> [n, length], the padding on the right.

    A chunk that has no tokens yet is tokenized. threads: how many do that at once.
    """

    def load(chunk: pa.RecordBatch) -> Callable[[int, int], dict[str, np.ndarray]]:
        if TOKENS not in chunk.schema.names:
            chunk, bad = with_tokens(feature, chunk, threads)
            _raise_all(bad)
        counts = token_counts(chunk)
        begins = chunk.column(TOKENS).offsets.to_numpy()
        ids = chunk.column(TOKENS).values.to_numpy()
        types = chunk.column(TYPES).values.to_numpy() if TYPES in chunk.schema.names else ids

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            tokens = counts[start:stop]
            length = padded(int(tokens.max()), feature.lengths)
            if not feature.lengths and tokens.min() < length:
                raise _uneven(feature, tokens, start)
            here = slice(begins[start], begins[stop])
            mask = np.arange(length) < tokens[:, np.newaxis]
            tensors = {}
            for spec in feature.inputs:
                if spec.name == "attention_mask":
                    value = mask.astype(spec.dtype)
                elif spec.name == "position_ids":
                    value = np.tile(np.arange(length, dtype=spec.dtype), (len(tokens), 1))
                else:
                    is_types = spec.name == "token_type_ids"
                    value = np.full(mask.shape, 0 if is_types else feature.pad_id, spec.dtype)
                    value[mask] = (types if is_types else ids)[here]
                tensors[spec.name] = value
            return tensors

        return rows

    return load


def _raise_all(bad: Mapping[int, BadRow]) -> None:
    if bad:
        first, *rest = (bad[row] for row in sorted(bad))
        raise BadRow(first.row, first.column, first.reason, lambda: ((one.row, one.reason) for one in rest))


def _uneven(feature: TextColumn, tokens: np.ndarray, start: int) -> BadRow:
    row = int(np.argmin(tokens))
    reason = f"{tokens[row]} tokens, {tokens.max()} like its neighbours, and nothing says with what to pad"
    return BadRow(start + row, feature.columns[0], reason)
