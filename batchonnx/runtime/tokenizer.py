"""Hugging Face's tokenizers behind one seam: text to token ids, without holding the interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

Text = str | tuple[str, str]
"""One text, or a pair."""

SLICE_TEXTS, SLICE_CHARACTERS = 256, 1 << 20
"""Texts in one call of the library: what it makes of each takes far more memory than the ids."""


@lru_cache(maxsize=4)
def open_tokenizer(data: bytes, max_length: int | None = None, from_left: bool = False) -> Any:
    """A tokenizer, safe to share between threads. data: of a tokenizer.json.

    max_length: tokens of a text, special ones included; longer texts are cut at their end, or on the left.
    Raises ValueError naming what is wrong with the data, ImportError without the package.
    """
    # Each worker tokenizes on its own cores; the library's own threads would take those of the others, too.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises nothing more special
        raise ValueError(str(error)) from error
    if max_length is not None:
        tokenizer.enable_truncation(max_length, direction="left" if from_left else "right")
        tokenizer.no_padding()
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[Text], threads: int) -> Iterator[Any]:
    """What the library makes of each text, in order: `ids` and `type_ids`; an Exception where it can't.

    threads: how many tokenize at once.
    """
    slices = list(_slices(texts))
    if threads > 1 and len(slices) > 1:
        with ThreadPoolExecutor(threads) as pool:
            yield from chain.from_iterable(pool.map(lambda some: _encode(tokenizer, some), slices))
        return
    for some in slices:
        yield from _encode(tokenizer, some)


def flat(lists: Iterable[Sequence[int]], count: int, dtype: str) -> np.ndarray:
    """[count]: lists of integers one behind the other."""
    return np.fromiter(chain.from_iterable(lists), dtype, count)


def _slices(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    first, size = 0, 0
    for place, text in enumerate(texts):
        size += len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
        if place + 1 - first == SLICE_TEXTS or size >= SLICE_CHARACTERS:
            yield texts[first : place + 1]
            first, size = place + 1, 0
    if first < len(texts):
        yield texts[first:]


def _encode(tokenizer: Any, texts: Sequence[Text]) -> list[Any]:
    try:
        # Without offsets, which nobody asks for.
        return list(tokenizer.encode_batch_fast(texts))
    except Exception as error:  # the library raises nothing more special
        if len(texts) == 1:
            return [error]
        return [made for text in texts for made in _encode(tokenizer, [text])]
