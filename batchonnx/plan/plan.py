"""The plan: everything that a run will do, decided before the first row is read."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from batchonnx.job.spec import JobFile
from batchonnx.plan.bindings import FeatureBinding, OutputBinding
from batchonnx.plan.filter import Filter
from batchonnx.plan.listing import Listing
from batchonnx.plan.shards import Shard
from batchonnx.runtime.signature import ModelSignature


@dataclass(frozen=True)
class Plan:
    """A pure function of job, model and input listing.

    columns: input columns to read (features, keep, filter), in the schema's order.
    keep: fields carried along into the parts, before the predictions.
    output: absolute path of the output folder.
    notes: what a user should know and need not mend (a narrowing cast, a guessed match).
    fingerprint: SHA-256 over all that decides the result's bytes.
    """

    job: JobFile
    model: ModelSignature
    listing: Listing
    columns: tuple[str, ...]
    filter: Filter | None
    features: tuple[FeatureBinding, ...]
    outputs: tuple[OutputBinding, ...]
    keep: tuple[pa.Field, ...]
    shards: tuple[Shard, ...]
    output: str
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def rows(self) -> int | None:
        """Rows in all shards, before the filter; None where only reading tells."""
        known = [shard.rows for shard in self.shards if shard.rows is not None]
        return sum(known) if len(known) == len(self.shards) else None
