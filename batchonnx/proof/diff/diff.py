"""How one result differs from another: settings, speed, and the predictions of each row that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from batchonnx.errors import ChangedError, InputError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import PlanRecord
from batchonnx.planning.identity import differences, input_name
from batchonnx.proof.columns import predicted_columns
from batchonnx.proof.diff.by_key import join_by_key
from batchonnx.proof.diff.by_row import join_by_row
from batchonnx.proof.diff.columns import ColumnChange, ColumnTally
from batchonnx.proof.diff.rows import Joined, Read
from batchonnx.proof.verify import read_result
from batchonnx.scoring.quarantine import FILE, ROW


@dataclass(frozen=True)
class Side:
    """A result, in figures. elapsed_s: of its run's last life; None if its records don't tell."""

    output: str
    run: str
    version: str
    model: str
    engine: str
    workers: int
    elapsed_s: float | None
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int


@dataclass(frozen=True)
class Difference:
    """Result b against result a.

    settings: name, a's value, b's value, of all that differs but input files; files: how many are the same,
    changed, a's alone, b's alone. joined_by: the key's columns.
    columns: predictions that both have. unpaired: those that only one has, with which.
    """

    a: Side
    b: Side
    settings: tuple[tuple[str, str, str], ...]
    files: tuple[int, int, int, int]
    joined_by: tuple[str, ...]
    rows: Joined
    columns: tuple[ColumnChange, ...]
    unpaired: tuple[tuple[str, str], ...]


def diff_results(a: Output, b: Output, key: str | None, tolerance: float = 0.0) -> Difference:
    """Compare two published results.

    key: a kept column that tells rows apart; None: rows are known by their file and place in it.
    tolerance: a relative difference of numbers that is no change.
    Raises StorageError if a result is missing or can't be read, InputError for a key that isn't one,
    ChangedError where a filter has to be asked again and the input has changed.
    """
    left, right = Read(a, *read_result(a)), Read(b, *read_result(b))
    paired, unpaired = _columns(left, right, key)
    types = {name: (left.schema.field(name).type, right.schema.field(name).type) for name in paired}
    tallies = [ColumnTally(name, str(was), tolerance) for name, (was, now) in types.items() if was == now]
    other = [_retyped(name, was, now) for name, (was, now) in types.items() if was != now]
    try:
        joined = join_by_row(left, right, tallies) if key is None else join_by_key(left, right, key, tallies)
    except ChangedError as error:
        fix = "name a kept column that tells rows apart: --key COLUMN; or restore the file"
        raise ChangedError(*(replace(problem, fix=fix) for problem in error.problems)) from error
    return Difference(
        a=_side(left),
        b=_side(right),
        settings=tuple(_settings(left.plan, right.plan)),
        files=_files(left.plan.identity, right.plan.identity),
        joined_by=(key,) if key is not None else (FILE, ROW),
        rows=joined,
        columns=(*(tally.result() for tally in tallies), *other),
        unpaired=tuple(unpaired),
    )


def _columns(a: Read, b: Read, key: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    """Predictions that both have; those that one has, and which."""
    first, second = _predictions(a, key), _predictions(b, key)
    alone = [(name, a.output.path) for name in first if name not in second]
    alone += [(name, b.output.path) for name in second if name not in first]
    return [name for name in first if name in second], alone


def _predictions(side: Read, key: str | None) -> list[str]:
    if key is not None and key not in side.schema.names:
        facts = {"output": side.output.path, "expected": f"one of {', '.join(side.schema.names)}"}
        fix = "name a column that both results have kept, or leave --key out"
        raise InputError(Problem(f'the result has no column "{key}"', facts, fix))
    return [name for name in predicted_columns(side.plan, side.schema) if name != key]


def _retyped(name: str, was: pa.DataType, now: pa.DataType) -> ColumnChange:
    return ColumnChange(name, f"{was}, then {now}", 0, 0, None, None, "", ())


def _settings(a: PlanRecord, b: PlanRecord) -> Iterator[tuple[str, str, str]]:
    """What differs of the identities but input files, and of settings that change no byte."""
    is_file = input_name("")
    yield from (one for one in differences(a.identity, b.identity) if not one[0].startswith(is_file))
    told = [{"batchonnx": plan.version, **_flat("engine", plan.job.get("engine"))} for plan in (a, b)]
    known = {name for name, _, _ in differences(a.identity, b.identity)}
    yield from (one for one in differences(*told) if one[0] not in known)


def _flat(name: str, value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {k: v for key, inner in value.items() for k, v in _flat(f"{name}.{key}", inner).items()}
    return {name: str(value)}


def _files(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[int, int, int, int]:
    prefix = input_name("")
    before, now = ({k: v for k, v in one.items() if k.startswith(prefix)} for one in (a, b))
    shared = before.keys() & now.keys()
    same = sum(before[name] == now[name] for name in shared)
    return same, len(shared) - same, len(before) - len(shared), len(now) - len(shared)


def _side(read: Read) -> Side:
    manifest, work = read.manifest, read.manifest.work
    return Side(
        output=read.output.path,
        run=manifest.run,
        version=read.plan.version,
        model=manifest.model,
        engine=work.engine if work is not None else "",
        workers=work.workers if work is not None else 0,
        elapsed_s=work.elapsed_s if work is not None else None,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
    )
