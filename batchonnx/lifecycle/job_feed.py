"""A job's own rows, encoded and decoded as the job does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import ContractError, InputError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.lifecycle.feed import JobRows, Rows, Tensors
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.models import op_libraries
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.planning.stores import use_stores
from batchonnx.planning.texts import text_of
from batchonnx.runtime.signature import ModelSignature, OpLibrary
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.frames import FRAMES
from batchonnx.scoring.hooks import feature_hooks, output_hooks
from batchonnx.scoring.pooling import Pooling
from batchonnx.scoring.read import read_chunks


class JobFeed:
    """A job's rows for one model, which may be another than the job names.

    skipped: rows that can't be encoded, left out on the way to these.
    """

    def __init__(self, plan: Plan, columns: pa.RecordBatch) -> None:
        """columns: rows as the plan reads them. Raises HookError, InputError if not one can be encoded."""
        self._plan, self.fixed_batch = plan, plan.fixed_batch
        self._encoder = Encoder(plan.features, max(columns.num_rows, 1), feature_hooks(plan))
        self._decoder = Decoder(plan.outputs, output_hooks(plan), plan.fixed_batch)
        self._columns, self._slicer, self.skipped = _encodable(self._encoder, columns, plan.job)
        whole = self.fixed_batch or 1
        self.rows = self._columns.num_rows // whole * whole
        if not self.rows:
            raise _no_rows(plan.job, f"{self._columns.num_rows} rows, and the model takes {whole} a call")

    def tensors(self, start: int, stop: int) -> Tensors:
        """See `Feed`."""
        # The encoder's buffers are used again for the next rows: these are kept.
        fed = self._slicer(start, stop)
        return {name: np.array(value) for name, value in fed.items() if name != FRAMES}

    def columns(self, values: Mapping[str, Any], start: int, stop: int) -> dict[str, np.ndarray]:
        """See `Feed`."""
        made = [binding for binding in self._plan.outputs if not _is_plain(binding)]
        if not made:
            return {}
        if any(binding.pool is not None for binding in made):
            values = self._pooled(values, start, stop)
        fed = self._slicer(start, stop) if self._decoder.model_inputs else {}
        given = {**values, **{name: fed[name] for name in self._decoder.model_inputs}}
        arrays = self._decoder.decode([given], [stop - start])
        named = zip(self._plan.outputs, arrays, strict=True)
        return {binding.name: as_numpy(array) for binding, array in named if not _is_plain(binding)}

    def _pooled(self, values: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        names, text = self._decoder.model_outputs, text_of(self._plan.features)
        pooling = Pooling(self._plan.outputs, text, lambda sources, _: [values[name] for name in sources])
        return dict(zip(names, pooling.run(names, self.tensors(start, stop)), strict=True))


def libraries_of(rows: Rows | None) -> tuple[OpLibrary, ...]:
    """Of custom operators: those that the job names whose rows these are. Raises DependencyError."""
    return op_libraries(rows.job) if isinstance(rows, JobRows) else ()


def open_job_feeds(asked: JobRows, signatures: Sequence[ModelSignature]) -> list[JobFeed]:
    """The same rows of a job, as each of the models wants them.

    Raises what `plan` raises, where a model doesn't fit the job, and InputError if there are no rows.
    """
    use_stores(asked.job)
    if asked.job.job.models and not all(signature.members for signature in signatures):
        facts = {"job": asked.job.where("models")}
        fix = "name a job with one model, or leave --job out: values are then drawn at random"
        raise ContractError(Problem("the job's rows are for several models", facts, fix))
    plans = [make_plan(asked.job, signature) for signature in signatures]
    return [JobFeed(plan, _first_rows(plan, asked.count, asked.skip)) for plan in plans]


def as_numpy(column: pa.Array) -> np.ndarray:
    """[n, ...]: numbers where the column is of numbers, or of lists of as many numbers; else objects.

    Of a column of the largest elements with their labels, the first one's label: scores are the output's.
    """
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return np.asarray(column.to_numpy_ndarray())
    if pat.is_fixed_size_list(kind) and column.null_count == 0:
        inner = as_numpy(column.flatten())
        return inner.reshape(len(column), kind.list_size, *inner.shape[1:])
    if (pat.is_floating(kind) or pat.is_integer(kind) or pat.is_boolean(kind)) and column.null_count == 0:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    told = np.empty(len(column), object)
    told[:] = [repr(_best(value)) for value in column.to_pylist()]
    return told


def _best(value: Any) -> Any:
    is_ranked = isinstance(value, list) and value and isinstance(value[0], dict)
    return value[0].get("label", value) if is_ranked else value


def _is_plain(binding: OutputBinding) -> bool:
    """Whether the column is the model's output as it is: compared already."""
    plain = OutputBinding(binding.name, binding.source, binding.type, binding.row_shape)
    return binding == plain and binding.source.kind == "tensor"


def _first_rows(plan: Plan, count: int, skip: int) -> pa.RecordBatch:
    """At most so many rows, as the filter leaves them, behind those that are skipped."""
    found: list[pa.RecordBatch] = []
    rows, wanted = 0, skip + count
    for shard in plan.shards:
        for chunk in read_chunks(shard, plan.listing, plan.columns, plan.filter, wanted, wanted):
            taken = chunk.columns.slice(max(0, skip - rows), wanted - max(rows, skip))
            rows += chunk.columns.num_rows
            if taken.num_rows:
                found.append(taken)
            if rows >= wanted:
                return pa.concat_batches(found)
    if not found:
        raise _no_rows(plan.job, f"none behind the first {skip}" if skip else "none")
    return pa.concat_batches(found)


def _encodable(encoder: Encoder, columns: pa.RecordBatch, job: JobFile) -> tuple[pa.RecordBatch, Any, int]:
    """The rows that can be encoded, what gives their tensors, and how many can't."""
    skipped = 0
    while columns.num_rows:
        try:
            return columns, encoder.load(columns), skipped
        except BadRow as bad:
            wrong = {one.row for one in bad.each()}
            skipped += len(wrong)
            columns = columns.take(
                pa.array([row for row in range(columns.num_rows) if row not in wrong], pa.int64())
            )
    raise _no_rows(job, f"{skipped} rows, none of which can be encoded")


def _no_rows(job: JobFile, found: str) -> InputError:
    facts = {"job": job.where("input"), "found": found}
    fix = "give a job whose input has rows, or leave --job out: values are then drawn at random"
    return InputError(Problem("the job's input has no rows to run the model on", facts, fix))
