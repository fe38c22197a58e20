"""Some rows of a record batch, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa


def pick(batch: pa.RecordBatch, indexes: Sequence[int]) -> pa.RecordBatch:
    """Rows in the order asked; viewed if they are neighbours."""
    runs = list(_runs(indexes))
    if len(runs) == 1:
        return batch.slice(*runs[0])
    # Unlike take, slices are there for every type.
    return pa.concat_batches([batch.slice(start, length) for start, length in runs])


def take(batch: pa.RecordBatch, places: np.ndarray) -> pa.RecordBatch:
    """As `pick`, of many rows that lie far apart. places: int64[n]."""
    try:
        return batch.take(pa.array(places))
    except pa.ArrowNotImplementedError:  # of views, for one
        return pick(batch, places.tolist())


def _runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First index and length of each run of neighbours."""
    if not indexes:
        yield 0, 0
        return
    start = previous = indexes[0]
    for index in indexes[1:]:
        if index != previous + 1:
            yield start, previous + 1 - start
            start = index
        previous = index
    yield start, previous + 1 - start
