"""What joins of two results start from, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from batchonnx.errors import InputError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Manifest, PlanRecord
from batchonnx.proof.published import row_schema


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
