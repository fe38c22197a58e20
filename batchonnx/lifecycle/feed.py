"""The same rows for one model or two: drawn at random from a signature, or a job's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from batchonnx.job.spec import JobFile

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class RandomRows:
    """Rows drawn from a model's signature.

    sizes: symbolic dimension -> its size; others are of 8.
    """

    count: int = 64
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"random values, seed {self.seed}"


@dataclass(frozen=True)
class JobRows:
    """The first rows of a job's input that can be encoded, as the job itself would feed them.

    skip: rows of the input before them.
    """

    job: JobFile
    count: int = 256
    skip: int = 0

    def __str__(self) -> str:
        behind = f" behind the first {self.skip}" if self.skip else ""
        return f"the first rows of the job {self.job.job.name}{behind}"


@dataclass(frozen=True)
class GivenRows:
    """Rows that somebody has kept for this: input name -> array, all with as many rows.

    source: where they are from, for reports.
    """

    tensors: Mapping[str, Any]
    source: str

    def __str__(self) -> str:
        return f"the rows of {self.source}"


Rows = RandomRows | JobRows | GivenRows


class Feed(Protocol):
    """Rows as one model wants them."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    @property
    def fixed_batch(self) -> int | None:
        """Rows that a call has to have; None: any number."""
        ...

    def tensors(self, start: int, stop: int) -> Tensors:
        """The model's inputs for these rows; arrays of the caller's own.

        Raises BadRow where these rows can't be in one batch.
        """
        ...

    def columns(self, values: Mapping[str, Any], start: int, stop: int) -> dict[str, np.ndarray]:
        """What a job makes of the model's outputs for these rows: name -> [stop - start, ...]; else empty."""
        ...


class WholeBatches:
    """Another feed's rows, as many as fill batches of a size that it doesn't ask for itself."""

    def __init__(self, feed: Feed, fixed_batch: int, rows: int) -> None:
        """rows: how many there are for each of the models."""
        self._feed, self.fixed_batch = feed, fixed_batch
        self.rows = rows // fixed_batch * fixed_batch
        self.tensors, self.columns = feed.tensors, feed.columns
        self.skipped = getattr(feed, "skipped", 0)


def in_step(feeds: Sequence[Feed]) -> list[Feed]:
    """The same rows in the same batches for all models: a size that one of them wants is that of all."""
    sizes = {feed.fixed_batch for feed in feeds if feed.fixed_batch is not None}
    if len(sizes) != 1 or all(feed.fixed_batch is not None for feed in feeds):
        return list(feeds)
    rows = min(feed.rows for feed in feeds)
    return [WholeBatches(feed, size, rows) for feed in feeds for size in sizes]


def spans(feed: Feed, batch_rows: int) -> list[tuple[int, int]]:
    """All rows, cut into batches: of `batch_rows`, or what the model takes."""
    size = feed.fixed_batch or batch_rows
    return [(start, min(start + size, feed.rows)) for start in range(0, feed.rows, size)]
