"""Two models on the same rows of this machine: how far apart, how fast, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, GateError, Problem
from batchonnx.lifecycle.chained import open_in_chain
from batchonnx.lifecycle.contender import Contender, arrays, open_contender, open_feeds
from batchonnx.lifecycle.feed import Feed, JobRows, RandomRows, Rows, spans
from batchonnx.lifecycle.gates import Gates, Miss, judge
from batchonnx.lifecycle.machine import Machine, this_machine
from batchonnx.lifecycle.parity import Parity, measure_parity
from batchonnx.lifecycle.speed import Speed, time_in_turn
from batchonnx.runtime.session import PredictError
from batchonnx.runtime.signature import ModelSignature
from batchonnx.scoring.chunk import BadRow

BATCH_ROWS = 32
"""Rows in one call where answers are compared."""

SIZES = (1, 8, 64)
"""Rows in one call where speed is."""


@dataclass(frozen=True)
class Subject:
    """A model that was compared: path, SHA-256 and bytes, external data included."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Comparison:
    """What a comparison has found.

    rows, source: how many rows, and where they are from. skipped: rows that couldn't be fed to either model.
    parity: by output. speed: by batch size; empty if it wasn't asked for. speedup: of the best rows/s of b to
    the best of a, over all sizes, by CPU time. notes: what a reader should know.
    misses: gates that weren't passed.
    """

    a: Subject
    b: Subject
    rows: int
    source: str
    parity: tuple[Parity, ...]
    speed: tuple[Speed, ...]
    speedup: float | None
    machine: Machine
    gates: Gates
    misses: tuple[Miss, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether b is good enough to stand for a."""
        return not self.misses

    @property
    def verdict(self) -> str:
        """One line: "passed", or the gates that were missed, with figures."""
        if self.passed:
            asked = [
                f"{name.replace('_', '-')} {limit:g}"
                for name, limit in asdict(self.gates).items()
                if limit is not None
            ]
            return f"passed: {', '.join(asked)}" if asked else "passed: no gate was asked for"
        return "missed: " + "; ".join(_told(miss) for miss in self.misses)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/models.md."""
        return {**asdict(self), "passed": self.passed, "verdict": self.verdict}


def compare(
    a: str | Contender,
    b: str | Contender,
    rows: Rows | None = None,
    *,
    gates: Gates | None = None,
    outputs: Sequence[str] | None = None,
    sizes: Sequence[int] = SIZES,
    batch_rows: int = BATCH_ROWS,
) -> Comparison:
    """Run both on the same rows, in this process, one thread each.

    a: what is known to be good. b: what shall stand for it. rows: left out: 64 at random. outputs: those to
    compare, by a's names, or a job's columns; left out: all. sizes: batches to take speed at; none: speed
    isn't taken. batch_rows: of a call where answers are compared.
    Raises ModelFileError, ContractError where the models don't take the same inputs or a fails;
    that b fails, or gives other outputs, is a finding.
    """
    asked, source = gates or Gates(), rows or RandomRows()
    left, right = _open(a, b, source)
    feeds = open_feeds(source, left, right)
    known = _known_good(left, feeds[0], batch_rows, source)
    parity: tuple[Parity, ...] = ()
    speed: tuple[Speed, ...] = ()
    speedup = None
    try:
        answers = _answers(right, feeds[1], batch_rows)
    except PredictError as error:
        misses = [Miss("runs", None, None, None, f"{right.signature.path} fails where a doesn't: {error}")]
    else:
        parity, misses = _parity(known, _renamed(answers, left.signature, right.signature), outputs)
        speed = tuple(_speeds(left, right, feeds, sizes))
        speedup = max(s.b for s in speed) / max(s.a for s in speed) if speed else None
        misses += judge(asked, parity, speedup)
    skipped = max(getattr(feed, "skipped", 0) for feed in feeds)
    notes = (f"{skipped} rows couldn't be encoded and were left out",) if skipped else ()
    return Comparison(
        a=_subject(left.signature),
        b=_subject(right.signature),
        rows=feeds[0].rows,
        source=str(source),
        parity=parity,
        speed=speed,
        speedup=speedup,
        machine=this_machine(),
        gates=asked,
        misses=tuple(misses),
        notes=notes,
    )


def _open(a: str | Contender, b: str | Contender, rows: Rows) -> Sequence[Contender]:
    """Both; where the rows are a chain's, in their place there."""
    if isinstance(a, str) and isinstance(b, str) and isinstance(rows, JobRows) and rows.job.job.models:
        return open_in_chain((a, b), rows.job)
    return [open_contender(one, rows) if isinstance(one, str) else one for one in (a, b)]


def require_good(comparison: Comparison) -> None:
    """Raises GateError if a gate was missed, saying which and by how much."""
    if comparison.passed:
        return
    facts = {
        "a": comparison.a.path,
        "b": comparison.b.path,
        "rows": f"{comparison.rows:,}, {comparison.source}",
    }
    for number, miss in enumerate(comparison.misses):
        facts["found" if not number else f"found {number + 1}"] = _told(miss)
    fix = "make it another way, or widen the gate if that is good enough for the job"
    raise GateError(Problem("the model isn't good enough to stand for the other", facts, fix))


def _told(miss: Miss) -> str:
    where = f' of output "{miss.output}"' if miss.output is not None else ""
    return f"{miss.gate}{where}: {miss.told}"


def _subject(signature: ModelSignature) -> Subject:
    return Subject(signature.path, signature.digest, signature.bytes)


def _known_good(a: Contender, feed: Feed, batch_rows: int, source: Rows) -> dict[str, np.ndarray]:
    try:
        return _answers(a, feed, batch_rows)
    except PredictError as error:
        facts = {"model": a.signature.path, "rows": str(source), "found": str(error)}
        fix = "give rows that it takes: --job JOB"
        raise ContractError(
            Problem("the model that is compared with fails on the rows", facts, fix)
        ) from error


def _parity(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], outputs: Sequence[str] | None
) -> tuple[tuple[Parity, ...], list[Miss]]:
    """Figures of each output that both have, and what is missing from b."""
    wanted = list(a) if outputs is None else list(outputs)
    if unknown := [name for name in wanted if name not in a]:
        facts = {"found": unknown[0], "expected": ", ".join(a)}
        raise ContractError(
            Problem("there is no such output to compare", facts, "name one of those expected")
        )
    parity, misses = [], []
    for name in wanted:
        one, two = a[name], b.get(name)
        if two is None or one.shape != two.shape:
            told = "b has none" if two is None else f"b gives {list(two.shape)}, a {list(one.shape)}"
            misses.append(Miss("outputs", name, None, None, told))
        else:
            parity.append(measure_parity(name, one, two))
    return tuple(parity), misses


def _answers(contender: Contender, feed: Feed, batch_rows: int) -> dict[str, np.ndarray]:
    """Output or column -> what it is for all rows."""
    found: dict[str, list[np.ndarray]] = {}
    for start, stop in spans(feed, batch_rows):
        for first, last in _together(feed, start, stop):
            values = contender.run(feed.tensors(first, last))
            for name, value in {**arrays(values), **feed.columns(values, first, last)}.items():
                found.setdefault(name, []).append(value)
    return {name: _joined(blocks) for name, blocks in found.items()}


def _together(feed: Feed, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The batch, or its rows one by one where they can't be in one."""
    try:
        feed.tensors(start, stop)
    except BadRow:
        yield from ((row, row + 1) for row in range(start, stop))
    else:
        yield start, stop


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Batches of rows as one array; flattened where their rows aren't shaped alike."""
    if blocks[0].ndim and len({block.shape[1:] for block in blocks}) == 1:
        return np.concatenate(blocks)
    return np.concatenate([block.reshape(-1) for block in blocks])


def _renamed(found: Mapping[str, np.ndarray], a: ModelSignature, b: ModelSignature) -> dict[str, np.ndarray]:
    """b's answers under a's names: the same, or by place where none is the same and there are as many."""
    names = {spec.name for spec in a.outputs}
    if any(spec.name in names for spec in b.outputs) or len(a.outputs) != len(b.outputs):
        return dict(found)
    pairs = {two.name: one.name for one, two in zip(a.outputs, b.outputs, strict=True)}
    return {pairs.get(name, name): value for name, value in found.items()}


def _speeds(a: Contender, b: Contender, feeds: Sequence[Feed], sizes: Sequence[int]) -> Iterator[Speed]:
    fixed = feeds[0].fixed_batch
    for size in dict.fromkeys(fixed or min(size, feeds[0].rows) for size in sizes):
        try:
            one, two = (feed.tensors(0, size) for feed in feeds)
        except BadRow:  # the first rows can't be in one batch
            continue
        yield time_in_turn(size, partial(a.run, one), partial(b.run, two))
