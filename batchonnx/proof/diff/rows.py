"""What joins of two results start from, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchonnx.errors import InputError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Manifest, PlanRecord
from batchonnx.proof.diff.columns import ColumnTally
from batchonnx.proof.published import row_schema

SLICE_ROWS = 1 << 16
"""So many pairs are compared at a time."""


@dataclass(frozen=True)
class Read:
    """A result and its records."""

    output: Output
    plan: PlanRecord
    manifest: Manifest

    @property
    def schema(self) -> pa.Schema:
        """Its columns. Raises InputError where its records don't tell."""
        schema = row_schema(self.manifest.layout)
        if schema is None:
            facts = {"output": self.output.path, "found": "records of format 2, without a schema"}
            fix = "score again with this batchonnx"
            raise InputError(Problem("the result doesn't say what its columns are", facts, fix))
        return schema

    @property
    def predicted(self) -> int:
        """Its rows."""
        return sum(commit.predicted for commit in self.manifest.commits)


@dataclass(frozen=True)
class Joined:
    """Rows of two results. both, only_a, only_b: predicted ones.

    newly_bad: rows that a predicted and b put aside; no_longer_bad: the other way round.
    """

    both: int
    only_a: int
    only_b: int
    newly_bad: int
    no_longer_bad: int


def tally_pairs(
    a: pa.Table,
    b: pa.Table,
    here: np.ndarray,
    there: np.ndarray,
    tallies: Sequence[ColumnTally],
    name: Callable[[int], str],
) -> None:
    """Hand the values of pairs of rows to the tallies.

    here, there: int64[pairs], places in a and in b. name: of a pair, by its number, for people.
    """
    for begin in range(0, len(here), SLICE_ROWS):
        ours, others = (pa.array(places[begin : begin + SLICE_ROWS]) for places in (here, there))

        def name_here(place: int, begin: int = begin) -> str:
            return name(begin + place)

        for tally in tallies:
            tally.add(a[tally.column].take(ours), b[tally.column].take(others), name_here)
