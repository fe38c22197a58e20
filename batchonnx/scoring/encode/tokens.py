"""Columns of text to columns of tokens, beside the others of a chunk: what rows are arranged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from batchonnx.planning.bindings import TextColumn
from batchonnx.runtime.tokenizer import Text, flat, open_tokenizer, tokenize
from batchonnx.scoring.chunk import BadRow

TOKENS, TYPES = "batchonnx tokens", "batchonnx token types"
"""Names of the columns that are added: each row's token ids, and the type of each where the model asks."""


def with_tokens(
    feature: TextColumn, columns: pa.RecordBatch, threads: int
) -> tuple[pa.RecordBatch, dict[int, BadRow]]:
    """The columns and each row's tokens; and the rows that have none, with the reason.

    threads: how many tokenize at once.
    """
    bad: dict[int, BadRow] = {}
    texts = list(_texts(feature, columns, bad))
    good = [row for row in range(columns.num_rows) if row not in bad]
    tokenizer = open_tokenizer(feature.tokenizer, feature.max_length, feature.from_left)
    has_types = any(spec.name == "token_type_ids" for spec in feature.inputs)
    ids: list[Sequence[int]] = [()] * columns.num_rows
    types = [()] * columns.num_rows if has_types else None
    for row, made in zip(good, tokenize(tokenizer, texts, threads), strict=True):
        if isinstance(made, Exception):
            bad[row] = BadRow(row, feature.columns[0], f"the tokenizer fails: {str(made)[:200]}")
            continue
        ids[row] = made.ids
        if not ids[row]:
            bad[row] = BadRow(
                row, feature.columns[0], "no token: the text is empty, or holds nothing that is known"
            )
        if types is not None:
            types[row] = made.type_ids
    columns = columns.append_column(TOKENS, _lists(ids, "int32"))
    if types is not None:
        columns = columns.append_column(TYPES, _lists(types, "int8"))
    return columns, bad


def without_tokens(columns: pa.RecordBatch) -> pa.RecordBatch:
    """The columns as they were read."""
    return columns.select([name for name in columns.schema.names if name not in (TOKENS, TYPES)])


def token_counts(columns: pa.RecordBatch) -> np.ndarray:
    """int64[n]: how many tokens each row has."""
    return np.diff(columns.column(TOKENS).offsets.to_numpy())


def _lists(values: Sequence[Sequence[int]], dtype: str) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(one) for one in values], out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat(values, int(offsets[-1]), dtype)))


def _texts(feature: TextColumn, columns: pa.RecordBatch, bad: dict[int, BadRow]) -> Iterator[Text]:
    """What is to be tokenized, row by row; rows without it are put into `bad`."""
    values = [_strings(columns.column(name)) for name in feature.columns]
    for row in range(columns.num_rows):
        texts: list[str] = []
        for column, of_column in zip(feature.columns, values, strict=True):
            text = of_column[row] if of_column[row] is not None else feature.fill
            if text is None or isinstance(text, UnicodeDecodeError):
                reason = (
                    "null, a text is wanted"
                    if text is None
                    else f"no UTF-8 text: {text.reason} at {text.start}"
                )
                bad.setdefault(row, BadRow(row, column, reason))
            else:
                texts.append(text)
        if row not in bad:
            first = feature.prefix + texts[0]
            yield first if len(texts) == 1 else (first, texts[1])


def _strings(array: pa.Array) -> list[str | UnicodeDecodeError | None]:
    """The column's texts; where one is none, why. Arrow doesn't look at the bytes of a text that it reads."""
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        return [_string(value) for value in array]


def _string(value: pa.Scalar) -> str | UnicodeDecodeError | None:
    try:
        text: str | None = value.as_py()
    except UnicodeDecodeError as error:
        return error
    return text
