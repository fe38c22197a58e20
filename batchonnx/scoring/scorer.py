"""What all workers of a process share: the plan, the model, and the work on one chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import BatchonnxError, HookRaised, InputError, Problem, RowError
from batchonnx.parts.layout import Layout, encoded
from batchonnx.planning.bindings import HookFeature
from batchonnx.planning.hooks import load_hook
from batchonnx.planning.lines import line_columns, written_columns
from batchonnx.planning.plan import Plan
from batchonnx.runtime.session import Model, OutOfMemory, ProcessDied
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.decode.hook import RemoteColumn
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.encode.hook import Function, RemoteHook
from batchonnx.scoring.hook_processes import running_hooks
from batchonnx.scoring.isolate import NoRowAlone, RowFault, isolate, pick
from batchonnx.scoring.predict import predictor
from batchonnx.scoring.quarantine import ErrorBudget, quarantine_rows
from batchonnx.scoring.windows import Ragged

OUTPUT_BYTES = 8 << 20
"""Model outputs are decoded and handed to the writer in runs of about this size, however much
larger than its input a model's output is."""


Attempt = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Scores one batch, or raises RowFault."""


@dataclass
class StageClock:
    """Seconds spent in each stage by one worker; each stage is timed by one thread only."""

    read: float = 0.0
    encode: float = 0.0
    predict: float = 0.0
    decode: float = 0.0
    write: float = 0.0


@dataclass(frozen=True)
class Scored:
    """What became of neighbouring rows of a chunk.

    rows: how many they are. predictions: of the good ones, in order, kept columns first; None if
    none is good. quarantined: the bad ones (see `quarantine_rows`); None if all are good.
    """

    rows: int
    predictions: pa.RecordBatch | None
    quarantined: pa.RecordBatch | None = None


class Scorer:
    """Scores chunks of one plan with one model; one for each worker thread, sharing the model.

    batch_rows: rows in one call of the model. budget: how many rows may be bad; None: any number.
    clock: what time is counted on. calls, rows: how often the model was run, and for how many
    rows. first_at: when it first was (perf_counter). halved: batches that needed too much memory
    and were scored in pieces. call_bytes: what the model gave in one call, at most.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        batch_rows: int,
        budget: ErrorBudget | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self._plan, self._predict, self.batch_rows = plan, predictor(plan, model), batch_rows
        self.encoder = Encoder(plan.features, batch_rows, feature_hooks(plan), model.threads)
        self._decoder = Decoder(plan.outputs, output_hooks(plan), plan.fixed_batch)
        self._budget, self._clock = budget, clock or StageClock()
        self.calls = self.rows = self.halved = self.call_bytes = 0
        self.first_at: float | None = None

    def score(self, chunk: Chunk, is_enough: Callable[[], bool] = lambda: False) -> Iterator[Scored]:
        """What becomes of a chunk's rows, in order, in runs of bounded size.

        is_enough: asked before each batch; once it is true, the rows from there on are left out.
        Raises what a bad row is the cause of, if there is no budget for it, and ContractError for a
        model output that doesn't have a row for each input row.
        """
        names, clock, size = self._decoder.model_outputs, self._clock, self.batch_rows
        rows, fixed = chunk.columns.num_rows, self._plan.fixed_batch
        begin, held = 0, 0
        results: list[Mapping[str, Any]] = []
        start = perf_counter()
        try:
            tensors_of = self.encoder.load(chunk.columns)
        except BadRow:
            yield from self._carefully(chunk, 0, rows, self.attempt, is_enough)
            return
        # Between two calls of the model this loop holds the interpreter, with cold caches: it does
        # as little as it can.
        for first in range(0, rows, size):
            if is_enough():
                break
            stop = min(first + size, rows)
            try:
                tensors = tensors_of(first, stop)
                if fixed is not None and stop - first < fixed:
                    tensors = self._pad(tensors, fixed - (stop - first))
                encoded_at = perf_counter()
                values = self._predict(names, tensors)
            except RowFault:
                yield from self._decoded(chunk, begin, first, results)
                yield from self._carefully(chunk, first, stop, self.attempt)
                begin, held, results, start = stop, 0, [], perf_counter()
                continue
            self.calls += 1
            self.rows += stop - first
            results.append(self._result(names, values, tensors))
            given = sum(_bytes_of(value, stop - first) for value in values)
            held += given
            self.call_bytes = max(self.call_bytes, given)
            predicted_at = perf_counter()
            clock.encode += encoded_at - start
            clock.predict += predicted_at - encoded_at
            start = predicted_at
            self.first_at = self.first_at or predicted_at
            if held >= OUTPUT_BYTES:
                yield from self._decoded(chunk, begin, stop, results)
                begin, held, results, start = stop, 0, [], perf_counter()
        yield from self._decoded(chunk, begin, min(begin + len(results) * size, rows), results)

    def _decoded(
        self, chunk: Chunk, begin: int, stop: int, results: list[Mapping[str, Any]]
    ) -> Iterator[Scored]:
        """The rows whose outputs are there, batch by batch."""
        if not results:
            return
        start = perf_counter()
        try:
            lengths = [min(self.batch_rows, stop - first) for first in range(begin, stop, self.batch_rows)]
            predictions = self._predictions(chunk.columns.slice(begin, stop - begin), results, lengths)
        except (HookRaised, ProcessDied):
            self.rows -= stop - begin
            yield from self._carefully(chunk, begin, stop, self.attempt)
            return
        self._clock.decode += perf_counter() - start
        yield Scored(stop - begin, predictions)

    def score_apart(self, chunk: Chunk, attempt: Attempt) -> Iterator[Scored]:
        """What becomes of a chunk's rows, with each batch scored by `attempt`, which may raise RowFault."""

        def counted(columns: pa.RecordBatch) -> pa.RecordBatch:
            self.calls += 1
            return attempt(columns)

        yield from self._carefully(chunk, 0, chunk.columns.num_rows, counted)

    def _carefully(
        self,
        chunk: Chunk,
        begin: int,
        stop: int,
        attempt: Attempt,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[Scored]:
        """The same batches one by one, each in spite of its bad rows."""
        start = perf_counter()
        for first in range(begin, stop, self.batch_rows):
            if is_enough():
                return
            batch = chunk.slice(first, min(self.batch_rows, stop - first))
            scored = self._isolated(batch, attempt)
            self.rows += scored.rows
            self.first_at = self.first_at or perf_counter()
            self._clock.predict += perf_counter() - start
            yield scored
            start = perf_counter()

    def _isolated(self, batch: Chunk, attempt: Attempt) -> Scored:
        rows = batch.columns.num_rows
        reasons: dict[int, str] = {}

        def on_fault(row: int, error: Exception) -> None:
            reasons[row] = _reason(error)
            if self._budget is not None:
                self._budget.spend(_as_error(error, *batch.origin(row)))

        try:
            all_rows = isolate(rows, lambda indexes: attempt(pick(batch.columns, indexes)), on_fault)
        except NoRowAlone as alone:
            path, row = batch.origin(0)
            facts = {"file": path, "row": f"{row:,} and following", "found": str(alone.__cause__)}
            fix = "score fewer rows at once: engine.batch_rows"
            raise InputError(
                Problem("the model fails on a batch, but on none of its rows", facts, fix)
            ) from alone
        if not reasons:
            return Scored(rows, all_rows)
        bad = sorted(reasons)
        quarantined = quarantine_rows(batch, bad, [reasons[row] for row in bad])
        good = [row for row in range(rows) if row not in reasons]
        return Scored(rows, pick(all_rows, good) if all_rows is not None else None, quarantined)

    def attempt(self, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Kept columns and predictions of one batch, through all stages. Raises RowFault if it fails."""
        rows, fixed = columns.num_rows, self._plan.fixed_batch
        names = self._decoder.model_outputs
        tensors = self.encoder.load(columns)(0, rows)
        if fixed is not None and rows < fixed:
            tensors = self._pad(tensors, fixed - rows)
        self.calls += 1
        try:
            values = self._predict(names, tensors)
        except OutOfMemory:
            if rows == 1 or fixed is not None:
                raise
            self.halved += 1
            halves = columns.slice(0, rows // 2), columns.slice(rows // 2)
            return pa.concat_batches([self.attempt(half) for half in halves])
        return self._predictions(columns, [self._result(names, values, tensors)], [rows])

    def _result(
        self, names: Sequence[str], values: Sequence[Any], tensors: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """What the decoder is given of one call. Inputs lie in buffers that the next batch is written to."""
        result = dict(zip(names, values, strict=True))
        return result | {name: tensors[name].copy() for name in self._decoder.model_inputs}

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

    def _predictions(
        self, columns: pa.RecordBatch, results: list[Mapping[str, Any]], lengths: list[int]
    ) -> pa.RecordBatch:
        """Kept columns and predictions of `sum(lengths)` rows."""
        arrays = self._decoder.decode(results, lengths)
        kept = [columns.column(field.name) for field in self._plan.keep]
        fields = [
            pa.field(binding.name, array.type)
            for binding, array in zip(self._plan.outputs, arrays, strict=True)
        ]
        return pa.RecordBatch.from_arrays([*kept, *arrays], schema=pa.schema([*self._plan.keep, *fields]))


def _bytes_of(value: Any, rows: int) -> int:
    """Of one output; of maps, a guess."""
    return value.nbytes if isinstance(value, np.ndarray | Ragged) else 64 * rows


def _reason(error: Exception) -> str:
    if isinstance(error, BadRow):
        return f"{error.column}: {error.reason}"
    if isinstance(error, HookRaised):
        return error.problems[0].facts["found"]
    return str(error)


def _as_error(error: Exception, path: str, row: int) -> BatchonnxError:
    """A bad row's failure, told with where the row came from."""
    where = {"file": path, "row": f"{row:,}"}
    if isinstance(error, BadRow):
        facts = {**where, "column": error.column, "found": error.reason}
        fix = "mend the row, leave it out with input.filter, give the feature a fill or cast, or allow some"
        fix += " bad rows: errors.max_bad_rows"
        title = f'column "{error.column}" can\'t be encoded in row {row:,} of {path}'
        return RowError(Problem(title, facts, fix))
    if isinstance(error, HookRaised):
        (problem,) = error.problems
        return HookRaised(Problem(problem.title, {**where, **problem.facts}, problem.fix))
    facts = {**where, "found": str(error)}
    fix = "mend the row or leave it out with input.filter, or allow some bad rows: errors.max_bad_rows"
    return RowError(Problem(f"the model fails on row {row:,} of {path}", facts, fix))


def feature_hooks(plan: Plan) -> dict[str, Function | RemoteHook]:
    """`HookFeature.name` -> its function, loaded, or what asks a process for it. Raises HookError."""
    job, elsewhere = plan.job, running_hooks(plan)
    return {
        feature.name: elsewhere.feature(feature)
        if elsewhere is not None
        else load_hook(feature.function, job.folder, job.where(f"features.{feature.name}.python"))
        for feature in plan.features
        if isinstance(feature, HookFeature)
    }


def output_hooks(plan: Plan) -> dict[str, Callable[..., object] | RemoteColumn]:
    """Output column -> its function, loaded, or what asks a process for it. Raises HookError."""
    job, elsewhere = plan.job, running_hooks(plan)
    return {
        output.name: elsewhere.output(output)
        if elsewhere is not None and output.source.kind == "tensor"
        else load_hook(output.function, job.folder, job.where(f"outputs.{output.name}.python"))
        for output in plan.outputs
        if output.function is not None
    }


def layout_of(plan: Plan) -> Layout:
    """How parts are written; all output types have to be known."""
    keys = tuple(plan.job.job.output.partition_by)
    exploded = tuple(name for b in plan.outputs if b.explode for name, _ in line_columns(b))
    return Layout(plan.part_format, plan.compression, keys, encoded(output_schema(plan)), exploded)


def output_schema(plan: Plan) -> pa.Schema:
    """The schema of every part; all output types have to be known."""
    kept = {field.name: field for field in plan.keep}
    columns = written_columns(plan.keep, plan.outputs)
    return pa.schema([kept.get(name, pa.field(name, kind)) for name, kind in columns])
