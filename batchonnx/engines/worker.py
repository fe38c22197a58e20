"""A worker: takes shards, gives commits. The same object in a thread and in an actor."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from sys import maxsize
from time import perf_counter
from typing import Protocol

from batchonnx.engines.spare import SpareHands
from batchonnx.ledger.attempt import ShardAttempt
from batchonnx.ledger.output import Scoring
from batchonnx.ledger.records import Commit, SourceRows
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard, Source
from batchonnx.runtime.session import Model
from batchonnx.scoring.arrange import Piece
from batchonnx.scoring.channel import run_ahead
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.probe import BatchSize
from batchonnx.scoring.quarantine import ErrorBudget
from batchonnx.scoring.read import ShardReading, begin_reading
from batchonnx.scoring.sandbox import Sandbox
from batchonnx.scoring.scorer import Scored, Scorer, StageClock

AHEAD_BYTES = 16 << 20
"""What may wait between two stages of one worker: two chunks."""


SHARED_BYTES = 32 << 20
"""Rows are shared with idle workers only if their predictions are about so few: they wait as a whole."""


class Shards(Iterator[Shard], Protocol):
    """Shards as they come, for one worker or several."""

    @property
    def is_ready(self) -> bool:
        """Whether the next one, or the end, is there without a wait."""
        ...


class Stopped(Exception):
    """The run is ending: work in hand is dropped."""


@dataclass(frozen=True)
class _Step:
    """What happened to a shard, on its way to the writer: scored rows, filtered ones, or its end.

    calls: of the model, for the whole shard; known at its end.
    """

    shard: Shard
    scored: Scored | None = None
    filtered: int = 0
    is_last: bool = False
    calls: int = 0


class Worker:
    """Scores shards, reading ahead and writing behind in threads of its own.

    The properties may be read from other threads.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        batch: BatchSize,
        budget: ErrorBudget,
        run: Scoring,
        spare: SpareHands,
        stop: threading.Event,
        name: str,
        early: dict[int, ShardReading] | None = None,
    ) -> None:
        """early: shards that are being read already, by number; shared by all workers."""
        self._plan, self._model, self._batch, self._budget = plan, model, batch, budget
        self._suspects: Container[int] = run.suspects
        self._run, self._stop, self._name = run, stop, name
        self._early = early if early is not None else {}
        self._found: dict[int, list[SourceRows]] = {}
        self._begun: dict[int, float] = {}
        self._spare = spare
        self._made: Scorer | None = None
        self._sandbox: Sandbox | None = None
        self._output_row_bytes = 0.0
        self._clock = StageClock()
        self._opening_s = 0.0
        self._filtered = 0

    @property
    def busy_s(self) -> dict[str, float]:
        """Stage -> seconds, waits for disk and store included. May be read from other threads."""
        seconds = asdict(self._clock)
        # Counted apart: it is the scoring thread that waits for the store to take a part.
        return {**seconds, "write": seconds["write"] + self._opening_s}

    @property
    def calls(self) -> int:
        """Calls of the model."""
        return self._made.calls if self._made is not None else 0

    @property
    def halved(self) -> int:
        """Batches that needed too much memory and were scored in pieces."""
        return self._made.halved if self._made is not None else 0

    @property
    def rows_in(self) -> int:
        """Rows scored or filtered out so far."""
        return self._filtered + (self._made.rows if self._made is not None else 0)

    @property
    def first_at(self) -> float | None:
        """When the first batch came out of the model (perf_counter)."""
        return self._made.first_at if self._made is not None else None

    def stream(self, shards: Shards) -> Iterator[Commit]:
        """Score shards as they come, one commit for each; the next is read while one is scored.

        Raises what reading, scoring or writing raises; Stopped once the stop event is set.
        """
        chunks = self._read(shards)
        if self._plan.listing.is_remote:
            # From a local disk the system reads ahead; what was decoded by this very thread is
            # still in its core's cache (see docs/decisions/001-threads-of-a-worker.md).
            chunks = run_ahead(chunks, AHEAD_BYTES, _chunk_bytes, f"{self._name}-read")
        steps = run_ahead(self._predict(chunks), AHEAD_BYTES, _step_bytes, f"{self._name}-score")
        return self._write(steps)

    def _read(self, shards: Shards) -> Iterator[tuple[Shard, Chunk | None]]:
        reading = self._begin(shards)
        while reading is not None:
            following: ShardReading | None = None
            found = self._found[reading.shard.number] = []
            self._begun[reading.shard.number] = perf_counter()
            chunks = reading.chunks(self._plan.whole_rows, partial(_note, self._plan, found))
            while True:
                if self._stop.is_set():
                    raise Stopped
                start = perf_counter()
                chunk = next(chunks, None)
                if following is None and reading.is_fetched and shards.is_ready:
                    following = self._begin(shards)
                self._clock.read += perf_counter() - start
                yield reading.shard, chunk
                if chunk is None:
                    break
            reading = following or self._begin(shards)

    def _begin(self, shards: Shards) -> ShardReading | None:
        """The next shard; from a store, its first bytes are on their way."""
        shard = next(shards, None)
        if shard is None:
            return None
        return self._early.pop(shard.number, None) or begin_reading(self._plan, shard)

    def _predict(self, chunks: Iterator[tuple[Shard, Chunk | None]]) -> Iterator[_Step]:
        try:
            calls, begun = 0, None
            for shard, chunk in chunks:
                if shard is not begun:
                    start = perf_counter()
                    self._run.start(shard.number, self._plan.part(shard))
                    self._opening_s += perf_counter() - start
                    begun = shard
                if chunk is None:
                    yield _Step(shard, is_last=True, calls=self.calls - calls)
                    calls = self.calls
                    continue
                score = self._score_apart if shard.number in self._suspects else self._score
                for scored in score(chunk) if chunk.columns.num_rows else ():
                    if self._stop.is_set():
                        raise Stopped
                    yield _Step(shard, scored)
                self._filtered += chunk.filtered
                yield _Step(shard, filtered=chunk.filtered)
        finally:
            if self._sandbox is not None:
                self._sandbox.close()
            self._spare.leave()
        self.lend()

    def lend(self) -> None:
        """Score for the others alone, until none of them has a shard. Raises DeviceLost."""
        self._spare.serve(self._score_for_another)

    def _score_for_another(self, piece: Piece) -> list[Scored]:
        scored = self._score_part(piece)
        self._settle(self._scorer(piece.chunk))
        return scored

    def _settle(self, scorer: Scorer) -> None:
        if self._model.lanes is not None:
            self._batch.fit(scorer.fits)

    def _score(self, chunk: Chunk) -> Iterator[Scored]:
        """Predictions in the order of rows."""
        scorer = self._scorer(chunk)
        for arranged in scorer.arrange(chunk):
            yield from scorer.in_order(arranged, self._score_piece(scorer, arranged.piece))
            self._settle(scorer)

    def _score_piece(self, scorer: Scorer, piece: Piece) -> Iterator[Scored]:
        """Predictions in the order of work; workers that are or become idle take their share of what is left.

        Cut between batches, so that who scores what, and when, changes no batch.
        """
        rows, first = piece.chunk.columns.num_rows, 0
        may_share = self._output_row_bytes * rows <= SHARED_BYTES
        written = 0
        for scored in scorer.score_piece(piece, lambda: may_share and self._spare.idle > 0):
            first += scored.rows
            written += _scored_bytes(scored)
            yield scored
        if first < rows:
            done = bisect_right(piece.cuts, (first, maxsize))
            yield from self._spare.share(piece.part(done, len(piece.cuts)), self._score_part)
        elif rows:
            self._output_row_bytes = written / rows

    def _score_apart(self, chunk: Chunk) -> Iterator[Scored]:
        """Predictions for rows that may end the process that scores them."""
        scorer = self._scorer(chunk, untried=True)
        self._sandbox = self._sandbox or Sandbox(self._plan, scorer.batch_rows)
        yield from scorer.score_apart(chunk, self._sandbox.attempt)

    def _score_part(self, piece: Piece) -> list[Scored]:
        """Some batches of a piece that is shared."""
        return list(self._scorer(piece.chunk).score_piece(piece))

    def _scorer(self, chunk: Chunk, *, untried: bool = False) -> Scorer:
        """This worker's scorer, made when the first rows are there to settle the batch size."""
        if self._made is None:
            self._batch.settle(chunk, self._model, untried=untried)
            self._made = Scorer(self._plan, self._model, self._batch.most, self._budget, self._clock)
        if self._batch.settled != self._made.batch_rows:
            self._made.resize(self._batch.settled)
        return self._made

    def _write(self, steps: Iterator[_Step]) -> Iterator[Commit]:
        before = self.busy_s
        for first in steps:
            with ShardAttempt(self._run, self._plan, first.shard, self._name) as attempt:
                for step in chain([first], steps):
                    start = perf_counter()
                    if step.scored is not None:
                        attempt.write(step.scored)
                    attempt.filtered += step.filtered
                    self._clock.write += perf_counter() - start
                    if step.is_last:
                        break
                start = perf_counter()
                attempt.finish()
                self._clock.write += perf_counter() - start
                start, now = perf_counter(), self.busy_s
                seconds = {stage: round(now[stage] - before[stage], 6) for stage in now}
                sources = tuple(self._found.pop(first.shard.number))
                begun = self._begun.pop(first.shard.number)
                made = attempt.commit(sources, self._batch.settled, step.calls, seconds, begun)
                before = now
                self._clock.write += perf_counter() - start
            yield made


def _note(plan: Plan, found: list[SourceRows], source: Source, rows: int) -> None:
    path = plan.listing.files[source.file].path
    found.append(SourceRows(path, source.row_groups, source.first_row, rows))


def _chunk_bytes(item: tuple[Shard, Chunk | None]) -> int:
    return item[1].columns.nbytes if item[1] is not None else 0


def _step_bytes(step: _Step) -> int:
    return _scored_bytes(step.scored) if step.scored is not None else 0


def _scored_bytes(scored: Scored) -> int:
    return sum(rows.nbytes for rows in (scored.predictions, scored.quarantined) if rows is not None)
