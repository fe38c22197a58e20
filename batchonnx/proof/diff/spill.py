"""Rows dealt out to files by their key, so that those of one key are in files of one number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.types as pat

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: multiplied by it, neighbours end far apart (Knuth, vol. 3, 6.4)."""


def spill(batches: Iterable[pa.RecordBatch], keys: Sequence[str], folder: Path, number: int) -> list[Path]:
    """Write rows to `number` files in a folder, each row where its key belongs.

    batches: all with the same columns. keys: columns that tell rows apart. A file without rows isn't made.
    Raises OSError where the disk refuses.
    """
    paths = [folder / f"{i:03}.arrow" for i in range(number)]
    writers: dict[int, ipc.RecordBatchStreamWriter] = {}
    try:
        for batch in batches:
            places = places_of([batch.column(name) for name in keys], number)
            order = np.argsort(places, kind="stable")
            ends = np.searchsorted(places[order], np.arange(number + 1))
            for i in range(number):
                if (rows := order[ends[i] : ends[i + 1]]).size:
                    if i not in writers:
                        writers[i] = ipc.new_stream(pa.OSFile(str(paths[i]), "wb"), batch.schema)
                    writers[i].write_batch(batch.take(pa.array(rows)))
    finally:
        for writer in writers.values():
            writer.close()
    return paths


def places_of(columns: Sequence[pa.Array], number: int) -> np.ndarray:
    """int64[rows] below `number`: the same for the same values, whatever else is in the batch."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ _words(column)) * _ODD
        mixed ^= mixed >> np.uint64(32)
    places: np.ndarray = (mixed % np.uint64(number)).astype(np.int64)
    return places


def _words(column: pa.Array) -> np.ndarray:
    """uint64[rows]: equal for equal values. Null is like zero."""
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pat.is_integer(column.type) or pat.is_boolean(column.type):
        whole: np.ndarray = column.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        return whole.view(np.uint64)
    texts = column.cast(pa.large_string()).fill_null("")
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    _, offsets, data = texts.buffers()
    first = int(np.frombuffer(offsets, np.int64)[texts.offset])
    letters = np.frombuffer(data or b"", np.uint8)[first : first + int(ends[-1] if len(ends) else 0)]
    place = np.arange(len(letters)) - np.repeat(ends - lengths, lengths)
    weighed = (letters.astype(np.uint64) + np.uint64(1)) * (place.astype(np.uint64) * _ODD + np.uint64(1))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(weighed, dtype=np.uint64)])
    words: np.ndarray = sums[ends] - sums[ends - lengths]
    return words


def read_back(path: Path) -> pa.Table | None:
    """The rows of a file; None if there are none."""
    if not path.exists():
        return None
    with pa.memory_map(str(path)) as source, ipc.open_stream(source) as reader:
        return reader.read_all()
