"""What all workers of a process share: the plan, the model, and the work on one chunk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import maxsize
from time import perf_counter, sleep
from typing import Any

import numpy as np
import numpy.ma  # pyarrow imports it for its first array: 10 ms for which all workers would wait
import pyarrow as pa

from batchonnx.errors import HookRaised, InputError, Problem
from batchonnx.planning.bindings import inputs_of
from batchonnx.planning.plan import Plan
from batchonnx.planning.texts import text_of
from batchonnx.planning.written import output_schema
from batchonnx.runtime.session import Model, OutOfMemory, PredictError
from batchonnx.scoring.arrange import Arranged, Piece, arrangement
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.encode.tokens import without_tokens
from batchonnx.scoring.hooks import feature_hooks, output_hooks
from batchonnx.scoring.isolate import NoRowAlone, RowFault, isolate
from batchonnx.scoring.lines import explode, uneven
from batchonnx.scoring.pick import pick, take
from batchonnx.scoring.predict import predictor
from batchonnx.scoring.quarantine import ErrorBudget, quarantine_rows, reason_of, row_error
from batchonnx.scoring.reduce import reduce_outputs
from batchonnx.scoring.windows import Ragged

OUTPUT_BYTES = 8 << 20
"""Model outputs are decoded and handed to the writer in runs of about this size, however much
larger than its input a model's output is."""


WAITS_S = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0)
"""Between tries of a batch that can't be made smaller, on a device whose memory others may have taken."""

LOOKED_AT = 256
"""Rows among which the shortest are looked for."""

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
    none is good. quarantined: the bad ones (see `quarantine_rows`); None if all are good. bad: which
    of the rows those are, ascending.
    """

    rows: int
    predictions: pa.RecordBatch | None
    quarantined: pa.RecordBatch | None = None
    bad: Sequence[int] = ()


class Scorer:
    """Scores chunks of one plan with one model; one for each worker thread, sharing the model.

    batch_rows: rows in one call of the model. budget: how many rows may be bad; None: any number.
    clock: what time is counted on. calls, rows: how often the model was run, and for how many
    rows. first_at: when it first was (perf_counter). halved: batches that needed too much memory
    and were scored in pieces. fits: rows in one call that a device has memory for, as far as is known.
    call_bytes: what the model gave in one call, at most.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        batch_rows: int,
        budget: ErrorBudget | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self._plan, self._model, self.batch_rows, self.fits = plan, model, batch_rows, batch_rows
        reduced = reduce_outputs(plan, model)
        self._predict = predictor(plan, model, reduced)
        self.encoder = Encoder(plan.features, batch_rows, feature_hooks(plan), model.threads)
        self._arrangement = arrangement(plan, batch_rows, model.threads)
        self._axes = {b.key(spec): b.batch_axis for b in reduced.outputs for spec in b.sources}
        self._decoder = Decoder(reduced.outputs, output_hooks(plan), plan.fixed_batch)
        self._budget, self._clock = budget, clock or StageClock()
        self.calls = self.rows = self.halved = self.call_bytes = 0
        self.first_at: float | None = None

    def resize(self, batch_rows: int) -> None:
        """From the next chunk on, so many rows in one call; no more than the scorer was made for."""
        self.batch_rows = self.fits = batch_rows
        self._arrangement = arrangement(self._plan, batch_rows, self._model.threads)

    def score(self, chunk: Chunk) -> Iterator[Scored]:
        """What becomes of a chunk's rows, in order, in runs of bounded size.

        Raises what a bad row is the cause of, if there is no budget for it, and ContractError for a
        model output that doesn't have a row for each input row.
        """
        for arranged in self.arrange(chunk):
            yield from self.in_order(arranged, self.score_piece(arranged.piece))

    def arrange(self, chunk: Chunk) -> Iterator[Arranged]:
        """A chunk's rows as they go through the model, some after the other.

        Raises what a row is the cause of that can't be arranged, if there is no budget for it.
        """
        start = perf_counter()
        for arranged in self._arrangement.arrange(chunk):
            self._clock.encode += perf_counter() - start
            for row in sorted(arranged.bad):
                if self._budget is not None:
                    self._budget.spend(row_error(arranged.bad[row], *arranged.window.origin(row)))
            yield arranged
            start = perf_counter()

    def span(self, rows: int, row: int, wanted: int) -> tuple[int, int]:
        """Neighbours of a row of a chunk, begin and end, that are predicted as they are in the whole chunk.

        rows: of the chunk. wanted: about how many.
        """
        return self._arrangement.span(rows, row, wanted)

    def sample(self, span: Chunk, row: int, wanted: int) -> tuple[np.ndarray, pa.RecordBatch | None]:
        """Some rows of a span, at least the one: where in it they are, and what is predicted for them.

        Whole batches, about `wanted` rows of them; bad rows are left out. None if no row is good.
        """
        arranged = next(self.arrange(span))
        cuts, order = arranged.piece.cuts, arranged.order
        order = np.arange(span.columns.num_rows) if order is None else order
        place = int(np.argmax(order == row)) if len(order) else 0
        first = last = bisect_right(cuts, (place, maxsize))
        begin = cuts[first - 1][0] if first else 0
        while last < len(cuts) and (last == first or cuts[last][0] - begin <= wanted):
            last += 1
        places, kept = [], []
        for one in self.score_piece(arranged.piece.part(first, last)):
            if one.predictions is not None:
                places.append(np.delete(order[begin : begin + one.rows], list(one.bad)))
                kept.append(one.predictions)
            begin += one.rows
        return (np.concatenate(places), pa.concat_batches(kept)) if kept else (np.empty(0, np.int64), None)

    def shortest(self, chunk: Chunk, rows: int) -> Chunk:
        """Some of a chunk's first rows: the shortest texts, which take least time; else the very first."""
        arranged = next(self._arrangement.arrange(chunk.slice(0, LOOKED_AT)))
        count = arranged.piece.chunk.columns.num_rows
        first = max(0, count - rows) if arranged.order is not None else 0
        return arranged.piece.chunk.slice(first, min(rows, count))

    def score_piece(self, piece: Piece, is_enough: Callable[[], bool] = lambda: False) -> Iterator[Scored]:
        """What becomes of arranged rows, in the order of work, in runs of bounded size.

        is_enough: asked before each batch; once it is true, the rows from there on are left out.
        """
        names, clock, fixed = self._decoder.model_outputs, self._clock, self._plan.fixed_batch
        chunk = piece.chunk
        first = begin = held = 0
        results: list[Mapping[str, Any]] = []
        lengths: list[int] = []
        start = perf_counter()
        try:
            tensors_of = self.encoder.load(chunk.columns)
        except BadRow:
            yield from self._carefully(piece, 0, len(piece.cuts), self.attempt, is_enough)
            return
        # Between two calls of the model this loop holds the interpreter, with cold caches: it does
        # as little as it can.
        for number, (stop, fed) in enumerate(piece.cuts):
            if is_enough():
                break
            rows = stop - first
            try:
                tensors = tensors_of(first, stop)
                if fed > rows:
                    tensors = self._pad(tensors, fed - rows)
                encoded_at = perf_counter()
                values = self._predict(names, tensors)
            except RowFault:
                yield from self._decoded(piece, begin, results, lengths)
                yield from self._carefully(piece, number, number + 1, self.attempt)
                first = begin = stop
                held, results, lengths, start = 0, [], [], perf_counter()
                continue
            if fed > rows and fixed is None:
                values = self._unpad(names, values, fed, rows)
            self.calls += 1
            self.rows += rows
            results.append(self._result(names, values, tensors, rows))
            lengths.append(rows)
            given = sum(_bytes_of(value, rows) for value in values)
            held += given
            self.call_bytes = max(self.call_bytes, given)
            predicted_at = perf_counter()
            clock.encode += encoded_at - start
            clock.predict += predicted_at - encoded_at
            first, start = stop, predicted_at
            self.first_at = self.first_at or predicted_at
            if held >= OUTPUT_BYTES:
                yield from self._decoded(piece, begin, results, lengths)
                begin, held, results, lengths, start = stop, 0, [], [], perf_counter()
        yield from self._decoded(piece, begin, results, lengths)

    def _decoded(
        self, piece: Piece, begin: int, results: list[Mapping[str, Any]], lengths: list[int]
    ) -> Iterator[Scored]:
        """The rows whose outputs are there, batch by batch. begin: the first of them."""
        if not results:
            return
        start, rows = perf_counter(), sum(lengths)
        try:
            predictions = self._predictions(piece.chunk.columns.slice(begin, rows), results, lengths)
        except (HookRaised, PredictError):  # of a process with a hook, or of a row whose lists can't be
            self.rows -= rows
            number = bisect_right(piece.cuts, (begin, maxsize))
            yield from self._carefully(piece, number, number + len(lengths), self.attempt)
            return
        self._clock.decode += perf_counter() - start
        yield Scored(rows, predictions)

    def in_order(self, arranged: Arranged, scored: Iterable[Scored]) -> Iterator[Scored]:
        """What became of an arranged piece, in the order in which its rows were read."""
        if arranged.order is None:
            yield from scored
            return
        good, kept = [], []
        aside = list(arranged.bad)
        first = 0
        quarantined = [self._put_aside(arranged)] if aside else []
        for one in scored:
            here = arranged.order[first : first + one.rows]
            first += one.rows
            if one.quarantined is not None:
                quarantined.append(one.quarantined)
                aside += here[list(one.bad)].tolist()
            if one.predictions is not None:
                good.append(np.delete(here, list(one.bad)))
                kept.append(one.predictions)
        start = perf_counter()
        places = np.concatenate(good) if good else np.empty(0, np.int64)
        predictions = take(pa.concat_batches(kept), np.argsort(places)) if kept else None
        bad = take(pa.concat_batches(quarantined), np.argsort(aside)) if aside else None
        self._clock.decode += perf_counter() - start
        yield Scored(first + len(arranged.bad), predictions, bad, sorted(aside))

    def _put_aside(self, arranged: Arranged) -> pa.RecordBatch:
        """Rows that are in no batch; in the order of `arranged.bad`."""
        reasons = [reason_of(error) for error in arranged.bad.values()]
        self.rows += len(reasons)
        return quarantine_rows(arranged.window, list(arranged.bad), reasons)

    def score_apart(self, chunk: Chunk, attempt: Attempt) -> Iterator[Scored]:
        """What becomes of a chunk's rows, with each batch scored by `attempt`, which may raise RowFault."""

        def counted(columns: pa.RecordBatch) -> pa.RecordBatch:
            self.calls += 1
            return attempt(columns)

        for arranged in self.arrange(chunk):
            piece = arranged.piece
            yield from self.in_order(arranged, self._carefully(piece, 0, len(piece.cuts), counted))

    def _carefully(
        self,
        piece: Piece,
        number: int,
        last: int,
        attempt: Attempt,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[Scored]:
        """The batches from one to another, one by one, each in spite of its bad rows."""
        start = perf_counter()
        first = piece.cuts[number - 1][0] if number else 0
        for stop, _ in piece.cuts[number:last]:
            if is_enough():
                return
            scored = self._isolated(piece.chunk.slice(first, stop - first), attempt)
            first = stop
            self.rows += scored.rows
            self.first_at = self.first_at or perf_counter()
            self._clock.predict += perf_counter() - start
            yield scored
            start = perf_counter()

    def _isolated(self, batch: Chunk, attempt: Attempt) -> Scored:
        rows = batch.columns.num_rows
        reasons: dict[int, str] = {}

        def on_fault(row: int, error: Exception) -> None:
            reasons[row] = reason_of(error)
            if self._budget is not None:
                self._budget.spend(row_error(error, *batch.origin(row)))

        try:
            all_rows = isolate(rows, lambda indexes: attempt(pick(batch.columns, indexes)), on_fault)
        except NoRowAlone as alone:
            path, row = batch.origin(0)
            facts = {"file": path, "row": f"{row:,} and following", "found": str(alone.__cause__)}
            fix = "score fewer rows at once: engine.batch_rows"
            text = text_of(self._plan.features)
            if text is not None and text.lengths:
                fix += f"; or pad with another token than {text.pad_id}: features.{text.inputs[0].name}.pad"
            raise InputError(
                Problem("the model fails on a batch, but on none of its rows", facts, fix)
            ) from alone
        if not reasons:
            return Scored(rows, all_rows)
        bad = sorted(reasons)
        bare = batch.with_columns(without_tokens(batch.columns))
        quarantined = quarantine_rows(bare, bad, [reasons[row] for row in bad])
        good = [row for row in range(rows) if row not in reasons]
        return Scored(rows, pick(all_rows, good) if all_rows is not None else None, quarantined, bad)

    def attempt(self, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Kept columns and predictions of one batch, through all stages. Raises RowFault if it fails."""
        return self._attempt(columns, is_whole=True)

    def _attempt(self, columns: pa.RecordBatch, *, is_whole: bool) -> pa.RecordBatch:
        """is_whole: fill the batch up as it is where no row is bad; else only where the model wants it."""
        rows, fixed = columns.num_rows, self._plan.fixed_batch
        names = self._decoder.model_outputs
        tensors = self.encoder.load(columns)(0, rows)
        fed = self._arrangement.fed(rows, tensors) if is_whole else fixed or rows
        if fed > rows:
            tensors = self._pad(tensors, fed - rows)
        self.calls += 1
        try:
            values = self._predict(names, tensors)
        except OutOfMemory as error:
            if rows > 1 and fixed is None:
                self.halved += 1
                # No less, however small the pieces: other workers' batches are too large just now as well.
                self.fits = max(1, self.batch_rows // 2)
                halves = columns.slice(0, rows // 2), columns.slice(rows // 2)
                return pa.concat_batches([self._attempt(half, is_whole=False) for half in halves])
            values = self._later(names, tensors, error)
        if fed > rows and fixed is None:
            values = self._unpad(names, values, fed, rows)
        return self._predictions(columns, [self._result(names, values, tensors, rows)], [rows])

    def _later(
        self, names: Sequence[str], tensors: Mapping[str, np.ndarray], error: OutOfMemory
    ) -> list[Any]:
        """What the model gives once a device has memory again. Raises the last error."""
        for wait_s in WAITS_S if self._model.lanes is not None else ():
            sleep(wait_s)
            try:
                return self._predict(names, tensors)
            except OutOfMemory as again:
                error = again
        raise error

    def _result(
        self, names: Sequence[str], values: Sequence[Any], tensors: Mapping[str, np.ndarray], rows: int
    ) -> dict[str, Any]:
        """What the decoder is given of one call. Inputs lie in buffers that the next batch is written to."""
        result = dict(zip(names, values, strict=True))
        for name, axis in self._decoder.model_inputs.items():
            result[name] = _first(tensors[name], axis, tensors[name].shape[axis], rows).copy()
        return result

    def _pad(self, tensors: Mapping[str, np.ndarray], missing: int) -> dict[str, np.ndarray]:
        """Repeat the last row: any values would do, but these the model is known to take."""
        padded = dict(tensors)
        for binding in self._plan.features:
            if getattr(binding, "per_row", True):
                for spec in inputs_of(binding):
                    axis = binding.batch_axis
                    last = np.take(tensors[spec.name], [-1], axis)
                    tail = np.repeat(last, missing, axis)
                    padded[spec.name] = np.concatenate([tensors[spec.name], tail], axis)
        return padded

    def _unpad(self, names: Sequence[str], values: Sequence[Any], fed: int, rows: int) -> list[Any]:
        """The outputs of the rows that aren't made up."""
        return [_first(value, self._axes[name], fed, rows) for name, value in zip(names, values, strict=True)]

    def lines(self, predictions: pa.RecordBatch) -> pa.RecordBatch:
        """Kept columns and predictions as the result's files have them; see `scoring.lines`."""
        return explode(predictions, self._plan.outputs, output_schema(self._plan))

    def _predictions(
        self, columns: pa.RecordBatch, results: list[Mapping[str, Any]], lengths: list[int]
    ) -> pa.RecordBatch:
        """Kept columns and predictions of `sum(lengths)` rows. Raises PredictError if lists are `uneven`."""
        arrays = self._decoder.decode(results, lengths)
        kept = [columns.column(field.name) for field in self._plan.keep]
        fields = [
            pa.field(binding.name, array.type)
            for binding, array in zip(self._plan.outputs, arrays, strict=True)
        ]
        rows = pa.RecordBatch.from_arrays([*kept, *arrays], schema=pa.schema([*self._plan.keep, *fields]))
        if (fault := uneven(rows, self._plan.outputs)) is not None:
            raise PredictError(fault)
        return rows


def _bytes_of(value: Any, rows: int) -> int:
    """Of one output; of maps, a guess."""
    return value.nbytes if isinstance(value, np.ndarray | Ragged) else 64 * rows


def _first(value: Any, axis: int, fed: int, rows: int) -> Any:
    """The rows that aren't made up; the value itself if it hasn't a row for each, which the decoder tells."""
    if isinstance(value, list):
        return value[:rows]
    has_rows = value.ndim > axis and value.shape[axis] == fed
    return value[(slice(None),) * axis + (slice(rows),)] if has_rows else value
