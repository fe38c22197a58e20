"""A random sample of rows scored again: the result is what this model says of this input."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from batchonnx.errors import ChangedError, Problem, ProofError
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit, PlanRecord
from batchonnx.planning.devices import choose_device
from batchonnx.planning.identity import differences, input_name
from batchonnx.planning.models import open_models
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.planning.types import plain
from batchonnx.proof.origin import bad_rows, origin_of
from batchonnx.proof.published import rows_of_shard
from batchonnx.proof.recorded import recorded_job, recorded_shard
from batchonnx.proof.verify import Proof, read_result
from batchonnx.runtime.session import Model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.lines import implode
from batchonnx.scoring.pick import take
from batchonnx.scoring.probe import with_types
from batchonnx.scoring.read import read_chunks
from batchonnx.scoring.scorer import Scorer

SHARDS = 8
"""Rows are drawn from at most so many shards: each has to be read from its beginning."""

TOLERANCE = 1e-4
"""Largest difference of two numbers, as a share of the larger, that another kind of CPU may make."""


def rescore(output: Output, proof: Proof, rows: int, seed: int | None) -> Proof:
    """The proof with about `rows` rows scored again, in whole batches of random shards.

    Raises ProofError for a row that differs by more than TOLERANCE, ChangedError if the model, the
    settings or an input file that was drawn is no longer what it was, and what `plan` raises.
    """
    record, manifest = read_result(output)
    plan, model = _open(record)
    draw = random.Random(seed)
    commits = [commit for commit in manifest.commits if commit.predicted]
    drawn = draw.sample(commits, min(SHARDS, len(commits)))
    scored, worst = 0, 0.0
    for commit in sorted(drawn, key=lambda one: one.shard):
        share = max(1, rows // len(drawn))
        count, difference = _compare(output, record, plan, model, commit, share, draw)
        scored += count
        worst = max(worst, difference)
    return dataclasses.replace(proof, rescored=scored, difference=worst)


def _open(record: PlanRecord) -> tuple[Plan, Model]:
    job = recorded_job(record)
    device, _ = choose_device(job)
    model = open_models(job, device)
    plan = with_types(make_plan(job, model.signature, device), model)
    changed = [
        found
        for found in differences(record.identity, plan.identity)
        if not found[0].startswith(input_name(""))
    ]
    if changed:
        facts = {name: f"{old} -> {new}" for name, old, new in changed}
        fix = "restore what the result was made with; without it rows can't be scored again"
        raise ChangedError(Problem("the job has changed since the result was made", facts, fix))
    return plan, model


def _compare(
    output: Output,
    record: PlanRecord,
    plan: Plan,
    model: Model,
    commit: Commit,
    rows: int,
    draw: random.Random,
) -> tuple[int, float]:
    """Score some of a shard's rows again: how many, and the largest difference."""
    shard = recorded_shard(record, commit.shard, plan.listing)
    scorer = Scorer(plan, model, commit.batch_rows)
    chunks = read_chunks(shard, plan.listing, plan.columns, plan.filter, plan.whole_rows, plan.chunk_rows)
    passed = commit.rows_in - commit.filtered
    chosen = draw.randrange(passed)
    bad = bad_rows(output, commit)
    first = before = 0
    for chunk in chunks:
        if first + chunk.columns.num_rows > chosen:
            start, stop = scorer.span(chunk.columns.num_rows, chosen - first, rows)
            span = chunk.slice(start, stop - start)
            before += start - _count(chunk.slice(0, start), bad)
            places, predictions = scorer.sample(span, chosen - first - start, rows)
            if predictions is not None and record.layout.exploded:
                # As the result's lines are joined to rows again.
                joined = implode([scorer.lines(predictions)], record.layout.exploded)
                predictions = pa.concat_batches(list(joined))
            return _differ(output, record, commit, span, bad, (places, predictions), before)
        first += chunk.columns.num_rows
        before += chunk.columns.num_rows - _count(chunk, bad)
    raise ProofError(_gone(output, commit, passed, first))


def _differ(
    output: Output,
    record: PlanRecord,
    commit: Commit,
    span: Chunk,
    bad: Mapping[str, np.ndarray],
    sample: tuple[np.ndarray, pa.RecordBatch | None],
    before: int,
) -> tuple[int, float]:
    """sample: rows of the span, as they are predicted now. bad: see `bad_rows`. before: rows of the part."""
    places, predictions = sample
    if predictions is None:
        return 0, 0.0
    # Each row of the span among those that have a prediction.
    ranks = np.cumsum(~_are_bad(span, bad)) - 1
    count = span.columns.num_rows - _count(span, bad)
    rows = np.sort(ranks[places])
    now = pa.Table.from_batches([take(predictions, np.argsort(places))]).combine_chunks()
    published = rows_of_shard(output, record.layout, commit, before, count).combine_chunks().to_batches()
    was = pa.Table.from_batches([take(published[0], rows)])
    worst = 0.0
    for name in now.column_names:
        differences_found = _column(was.column(name), now.column(name))
        worst = max(worst, float(differences_found.max(initial=0.0)))
        if worst > TOLERANCE:
            at = int(differences_found.argmax())
            row = int(rows[at])
            path, file_row = origin_of(output, record, commit, before + row)
            facts = {
                "part": f"{output.path}/{commit.part}",
                "row": f"{before + row:,}, of row {file_row:,} of {path}",
                "column": name,
                "expected": str(now.column(name)[at]),
                "found": str(was.column(name)[at]),
            }
            fix = "find out what changed the result, or score again: run with --fresh"
            raise ProofError(Problem("a prediction isn't what the model says of its row", facts, fix))
    return now.num_rows, worst


def _column(was: pa.ChunkedArray, now: pa.ChunkedArray) -> np.ndarray:
    """float64[rows]: each row's largest difference, as a share of the larger; infinite if it is no number."""
    if was.equals(now):
        return np.zeros(len(now))
    pairs = zip(_values(was), _values(now), strict=True)
    return np.array([_difference(old, new) for old, new in pairs], np.float64)


def _values(column: pa.ChunkedArray) -> Iterator[object]:
    return map(plain, column)


def _difference(old: object, new: object) -> float:
    if old == new:
        return 0.0
    if isinstance(old, float) and isinstance(new, float):
        if np.isnan(old) and np.isnan(new):
            return 0.0
        return abs(old - new) / max(abs(old), abs(new))
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return max((_difference(a, b) for a, b in zip(old, new, strict=True)), default=0.0)
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return max((_difference(old[key], new[key]) for key in old), default=0.0)
    return float("inf")


def _are_bad(chunk: Chunk, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool[rows of the chunk]: which are among those."""
    found = [
        np.isin(segment.places, rows.get(segment.path, np.empty(0, np.int64))) for segment in chunk.segments
    ]
    return np.concatenate(found) if found else np.empty(0, bool)


def _count(chunk: Chunk, rows: Mapping[str, np.ndarray]) -> int:
    """How many of a chunk's rows are among those."""
    return int(_are_bad(chunk, rows).sum())


def _gone(output: Output, commit: Commit, expected: int, found: int) -> Problem:
    facts = {
        "part": f"{output.path}/{commit.part}",
        "expected": f"{expected:,} rows",
        "found": f"{found:,}",
    }
    return Problem("the shard's input has fewer rows than were scored", facts, "restore the input")
