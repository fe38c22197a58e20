"""What all workers of a process share: the plan, the model, and the work on one chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import InputError, Problem, RowError
from batchonnx.planning.bindings import HookFeature
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model, PredictError
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.encode import Encoder

OUTPUT_BYTES = 8 << 20
"""Model outputs are decoded and handed to the writer in runs of about this size, however much
larger than its input a model's output is."""


@dataclass
class StageClock:
    """Seconds spent in each stage by one worker; each stage is timed by one thread only."""

    read: float = 0.0
    encode: float = 0.0
    predict: float = 0.0
    decode: float = 0.0
    write: float = 0.0


class Scorer:
    """Scores chunks of one plan with one model; one for each worker thread, sharing the model.

    batch_rows: rows in one call of the model. clock: what time is counted on. calls, rows: how
    often the model was run, and for how many rows. first_at: when it first was (perf_counter).
    """

    def __init__(self, plan: Plan, model: Model, batch_rows: int, clock: StageClock | None = None) -> None:
        self._plan, self._model, self.batch_rows = plan, model, batch_rows
        self._encoder = Encoder(plan.features, batch_rows, _feature_hooks(plan))
        self._decoder = Decoder(plan.outputs, _output_hooks(plan), plan.fixed_batch)
        self._clock = clock or StageClock()
        self.calls = self.rows = 0
        self.first_at: float | None = None

    def score(self, chunk: Chunk, is_enough: Callable[[], bool] = lambda: False) -> Iterator[pa.RecordBatch]:
        """Predictions for a chunk's rows, kept columns first, in runs of bounded size.

        is_enough: asked before each batch; once it is true, the rows from there on are left out.
        Raises RowError for a row that can't be encoded, ContractError for a model output that
        doesn't have a row for each input row.
        """
        names, clock, size = self._decoder.model_outputs, self._clock, self.batch_rows
        rows, fixed = chunk.columns.num_rows, self._plan.fixed_batch
        begin, held, first = 0, 0, 0
        results: list[Mapping[str, Any]] = []
        start = perf_counter()
        # Between two calls of the model this loop holds the interpreter, with cold caches: it does
        # as little as it can.
        try:
            tensors_of = self._encoder.load(chunk.columns)
            for first in range(0, rows, size):
                if is_enough():
                    break
                stop = min(first + size, rows)
                tensors = tensors_of(first, stop)
                if fixed is not None and stop - first < fixed:
                    tensors = self._pad(tensors, fixed - (stop - first))
                encoded_at = perf_counter()
                values = self._model.run(names, tensors)
                self.calls += 1
                self.rows += stop - first
                results.append(dict(zip(names, values, strict=True)))
                for value in values:
                    held += value.nbytes if isinstance(value, np.ndarray) else 64 * (stop - first)
                predicted_at = perf_counter()
                clock.encode += encoded_at - start
                clock.predict += predicted_at - encoded_at
                start = predicted_at
                self.first_at = self.first_at or predicted_at
                if held >= OUTPUT_BYTES:
                    yield self._decode(chunk, begin, stop, results)
                    begin, held, results, start = stop, 0, [], perf_counter()
            if results:
                yield self._decode(chunk, begin, stop, results)
        except BadRow as bad:
            raise self._row_error(bad, chunk) from bad
        except PredictError as error:
            raise self._batch_error(error, tensors, chunk, first) from error

    def _batch_error(
        self, error: PredictError, tensors: Mapping[str, np.ndarray], chunk: Chunk, first: int
    ) -> InputError:
        path, row = chunk.origin(first)
        shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in tensors.items())
        facts = {"file": path, "row": f"{row:,} and following", "fed": shapes, "found": str(error)}
        fix = "score fewer rows with input.filter to find the row, or mend the model"
        return InputError(Problem("the model failed on a batch", facts, fix))

    def _pad(self, tensors: Mapping[str, np.ndarray], missing: int) -> dict[str, np.ndarray]:
        """Repeat the last row: any values would do, but these the model is known to take."""
        padded = dict(tensors)
        for binding in self._plan.features:
            specs = binding.inputs if isinstance(binding, HookFeature) else (binding.input,)
            if getattr(binding, "per_row", True):
                for spec in specs:
                    axis = binding.batch_axis
                    last = np.take(tensors[spec.name], [-1], axis)
                    tail = np.repeat(last, missing, axis)
                    padded[spec.name] = np.concatenate([tensors[spec.name], tail], axis)
        return padded

    def _decode(
        self, chunk: Chunk, begin: int, stop: int, results: list[Mapping[str, Any]]
    ) -> pa.RecordBatch:
        start = perf_counter()
        size = self.batch_rows
        lengths = [min(size, stop - first) for first in range(begin, stop, size)]
        arrays = self._decoder.decode(results, lengths)
        kept = [chunk.columns.column(field.name).slice(begin, stop - begin) for field in self._plan.keep]
        fields = [
            pa.field(binding.name, array.type)
            for binding, array in zip(self._plan.outputs, arrays, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays([*kept, *arrays], schema=pa.schema([*self._plan.keep, *fields]))
        self._clock.decode += perf_counter() - start
        return batch

    def _row_error(self, bad: BadRow, chunk: Chunk) -> RowError:
        path, row = chunk.origin(bad.row)
        facts = {"file": path, "row": f"{row:,}", "column": bad.column, "found": bad.reason}
        fix = "mend the row, leave it out with input.filter, or give the feature a fill or cast"
        return RowError(
            Problem(f'column "{bad.column}" can\'t be encoded in row {row:,} of {path}', facts, fix)
        )


def _feature_hooks(plan: Plan) -> dict[str, Callable[[pa.RecordBatch], object]]:
    job = plan.job
    return {
        feature.name: load_hook(feature.function, job.folder, job.where(f"features.{feature.name}.python"))
        for feature in plan.features
        if isinstance(feature, HookFeature)
    }


def _output_hooks(plan: Plan) -> dict[str, Callable[..., object]]:
    job = plan.job
    return {
        output.name: load_hook(output.function, job.folder, job.where(f"outputs.{output.name}.python"))
        for output in plan.outputs
        if output.function is not None
    }


def output_schema(plan: Plan) -> pa.Schema:
    """The schema of every part; all output types have to be known."""
    return pa.schema([*plan.keep, *(pa.field(binding.name, binding.type) for binding in plan.outputs)])
