"""Rows dealt out to files by their key, so that those of one key are in files of one number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.types as pat

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: multiplied by it, neighbours end far apart (Knuth, vol. 3, 6.4)."""

_HALF = np.uint64(32)
_WORD = 8


def spill(batches: Iterable[pa.RecordBatch], key: str, folder: Path, number: int) -> list[Path]:
    """Write rows to `number` files in a new folder, each row where its key belongs.

    batches: all with the same columns. key: of integers or text. A file without rows isn't made.
    Raises OSError where the disk refuses.
    """
    folder.mkdir()
    paths = [folder / f"{i:03}.arrow" for i in range(number)]
    writers: dict[int, ipc.RecordBatchStreamWriter] = {}
    try:
        for batch in batches:
            places = places_of(batch.column(key), number)
            order = np.argsort(places, kind="stable")
            ends = np.searchsorted(places[order], np.arange(number + 1))
            sorted_ = batch.take(pa.array(order))
            for i in map(int, np.flatnonzero(np.diff(ends))):
                if i not in writers:
                    writers[i] = ipc.new_stream(pa.OSFile(str(paths[i]), "wb"), batch.schema)
                writers[i].write_batch(sorted_.slice(ends[i], ends[i + 1] - ends[i]))
    finally:
        for writer in writers.values():
            writer.close()
    return paths


def places_of(column: pa.Array, number: int) -> np.ndarray:
    """int64[rows] below `number`: the same for the same values, whatever else is in the column."""
    places: np.ndarray = (_mixed(_words(column)) % np.uint64(number)).astype(np.int64)
    return places


def _mixed(words: np.ndarray) -> np.ndarray:
    spread = words * _ODD
    mixed: np.ndarray = spread ^ (spread >> _HALF)
    return mixed


def _words(column: pa.Array) -> np.ndarray:
    """uint64[rows]: equal for equal values. Null is like zero, or like an empty text."""
    if pat.is_integer(column.type):
        whole: np.ndarray = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return whole.view(np.uint64)
    texts = column.cast(pa.large_string()).fill_null("")
    lengths: np.ndarray = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    _, offsets, data = texts.buffers()
    begins = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts)]
    letters = np.frombuffer(data or b"", np.uint8)
    # Eight letters from each place on, as one number; behind the last ones there are zeros.
    padded = np.concatenate([letters, np.zeros(_WORD, np.uint8)])
    eights = np.ndarray((len(letters) + 1,), "<u8", padded, strides=(1,))
    words = lengths.astype(np.uint64)
    rows = np.flatnonzero(lengths > 0)
    done = 0
    while len(rows):
        left = np.minimum(lengths[rows] - done, _WORD).astype(np.uint64)
        unused = np.uint64(8) * (np.uint64(_WORD) - left)
        words[rows] = _mixed(words[rows] ^ ((eights[begins[rows] + done] << unused) >> unused))
        done += _WORD
        rows = rows[lengths[rows] > done]
    return words


def read_back(path: Path) -> pa.Table | None:
    """The rows of a file; None if there are none. Its bytes are read, not mapped: they are counted once."""
    if not path.exists():
        return None
    with pa.OSFile(str(path)) as source, ipc.open_stream(source) as reader:
        return reader.read_all()
