"""The gate: what a result has to be like before anyone sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchonnx.errors import GateError, Problem, StorageError
from batchonnx.job.spec import Check
from batchonnx.ledger.records import Finding
from batchonnx.planning.types import plain

DECILES = 10
SAMPLE_ROWS = 1 << 20
"""Deciles are those of about so many values, evenly spread over the result."""

LEAST_SHARE = 1e-4
"""What an empty bin's share is taken for: the index would be infinite."""

MOST_LABELS = 10_000


@dataclass(frozen=True)
class Measured:
    """A shard's part to be looked at. path: for messages. read: some of its columns, as often as wanted."""

    path: str
    rows: int
    read: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


@dataclass
class _Profile:
    """What one pass over a column tells.

    nulls: null or NaN. low, high: of the numbers. bins: values in each bin of the deciles asked for.
    labels: label -> rows; first: any value.
    """

    rows: int = 0
    nulls: int = 0
    low: float = np.inf
    high: float = -np.inf
    varies: bool = False
    first: pa.Scalar | None = None
    bins: np.ndarray | None = None
    labels: Counter[object] = field(default_factory=Counter)


def check_result(
    checks: Mapping[str, Check], parts: Sequence[Measured], former: Sequence[Measured] | None
) -> tuple[Finding, ...]:
    """Measure a result's columns against the gate; reads those columns alone.

    parts: the staged result's. former: the published result's; None if there is none: what asks for
    a shift from it isn't checked then. Raises StorageError if a part can't be read.
    """
    return tuple(
        finding for name, check in checks.items() for finding in _findings(name, check, parts, former)
    )


def require_passed(findings: Iterable[Finding], output: str, staged: str) -> None:
    """Raises GateError with every check that failed."""
    failed = [finding for finding in findings if not finding.is_passed]
    if failed:
        raise GateError(
            *(
                Problem(
                    f'the gate holds the result back: "{finding.column}" fails {finding.check}',
                    {
                        "column": finding.column,
                        "expected": f"{finding.check} {finding.limit}",
                        "found": finding.found,
                        "staged": staged,
                    },
                    f"look at the staged result; release it with: batchonnx publish {output} --force",
                )
                for finding in failed
            )
        )


def psi(expected: np.ndarray, found: np.ndarray) -> float:
    """Population stability index of two histograms with the same bins: sum of (f - e) ln(f / e).

    e and f are each bin's share (N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9); an empty
    bin's is taken for LEAST_SHARE. expected, found: float or int[bins], any total above 0.
    """
    e = np.maximum(expected / expected.sum(), LEAST_SHARE)
    f = np.maximum(found / found.sum(), LEAST_SHARE)
    return float(np.sum((f - e) * np.log(f / e)))


def _findings(
    name: str, check: Check, parts: Sequence[Measured], former: Sequence[Measured] | None
) -> Iterator[Finding]:
    edges = _deciles(name, former) if check.max_psi is not None and former is not None else None
    wants_labels = check.max_shift is not None and former is not None
    now = _profile(name, parts, edges, wants_labels)
    if now.rows == 0:
        return
    if check.max_null is not None:
        share = now.nulls / now.rows
        found = f"{share:.4%} ({now.nulls:,} of {now.rows:,} rows)"
        yield Finding(name, "max_null", check.max_null, found, share <= _share(check.max_null))
    has_numbers = now.low <= now.high
    if check.min is not None:
        is_passed = not has_numbers or now.low >= check.min
        yield Finding(
            name, "min", f"{check.min:g}", f"{now.low:g}" if has_numbers else "no number", is_passed
        )
    if check.max is not None:
        is_passed = not has_numbers or now.high <= check.max
        yield Finding(
            name, "max", f"{check.max:g}", f"{now.high:g}" if has_numbers else "no number", is_passed
        )
    if check.varies:
        told = "no value" if now.first is None else f"{plain(now.first)!r} in every row"
        told = "several values" if now.varies else told
        yield Finding(name, "varies", "true", told, now.varies)
    for setting, limit in (("max_psi", check.max_psi), ("max_shift", check.max_shift)):
        if limit is None:
            continue
        moved = _psi(name, former, edges, now) if setting == "max_psi" else _shift(name, former, now)
        told = f"{limit:g}" if isinstance(limit, float) else limit
        if moved is None:
            yield Finding(name, setting, told, "no published values to compare with", True)
        else:
            most = limit if isinstance(limit, float) else _share(limit)
            yield Finding(name, setting, told, moved[1], moved[0] <= most)


def _psi(
    name: str, former: Sequence[Measured] | None, edges: np.ndarray | None, now: _Profile
) -> tuple[float, str] | None:
    if former is None or edges is None or now.bins is None or not now.bins.sum():
        return None
    before = _profile(name, former, edges, False)
    assert before.bins is not None
    index = psi(before.bins, now.bins)
    return index, f"{index:.4f}"


def _shift(name: str, former: Sequence[Measured] | None, now: _Profile) -> tuple[float, str] | None:
    before = _profile(name, former, None, True) if former is not None else _Profile()
    if not before.rows:
        return None
    label, shift = _largest_shift(before, now)
    return shift, f"{label!r} moved by {shift:.4%} of the rows"


def _largest_shift(before: _Profile, now: _Profile) -> tuple[object, float]:
    shifts = {
        label: abs(now.labels[label] / now.rows - before.labels[label] / max(1, before.rows))
        for label in {*before.labels, *now.labels}
    }
    # Of equal shifts the one that sorts first, so that the same result is told the same way.
    label = max(sorted(shifts, key=repr), key=lambda one: shifts[one], default=None)
    return label, shifts.get(label, 0.0)


def _profile(name: str, parts: Sequence[Measured], edges: np.ndarray | None, wants_labels: bool) -> _Profile:
    profile = _Profile(bins=None if edges is None else np.zeros(len(edges) + 1, np.int64))
    for values in _columns(name, parts):
        known = values.filter(pc.invert(pc.is_null(values, nan_is_null=True)))
        profile.rows += len(values)
        profile.nulls += len(values) - len(known)
        if wants_labels:
            counts = pc.value_counts(values)
            profile.labels.update(
                dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
            )
            if len(profile.labels) > MOST_LABELS:
                raise _too_many_labels(name)
        if not len(known):
            continue
        if profile.first is None:
            profile.first = known[0]
        profile.varies = profile.varies or not pc.all(pc.equal(known, profile.first)).as_py()
        if pa.types.is_integer(known.type) or pa.types.is_floating(known.type):
            numbers = known.to_numpy(zero_copy_only=False)
            profile.low = min(profile.low, float(numbers.min()))
            profile.high = max(profile.high, float(numbers.max()))
            if edges is not None and profile.bins is not None:
                places = np.searchsorted(edges, numbers.astype(np.float64), side="right")
                profile.bins += np.bincount(places, minlength=len(profile.bins))
    return profile


def _deciles(name: str, parts: Sequence[Measured]) -> np.ndarray | None:
    """float64[<= 9]: where the published result's deciles meet; None if it holds no number."""
    rows = sum(part.rows for part in parts)
    step = max(1, rows // SAMPLE_ROWS)
    samples = []
    for values in _columns(name, parts):
        numbers = values.to_numpy(zero_copy_only=False)[::step].astype(np.float64)
        samples.append(numbers[np.isfinite(numbers)])
    sample = np.concatenate(samples) if samples else np.empty(0)
    if not len(sample):
        return None
    return np.unique(np.quantile(sample, np.linspace(0, 1, DECILES + 1)[1:-1]))


def _columns(name: str, parts: Sequence[Measured]) -> Iterator[pa.Array]:
    for part in parts:
        try:
            for batch in part.read([name]):
                yield _comparable(batch.column(0))
        except KeyError:
            return  # another job's result has no such column
        except (OSError, pa.ArrowException, ValueError) as error:
            facts = {"file": part.path, "found": str(error).splitlines()[0][:300]}
            fix = "find out what changed the file, or start over with --fresh"
            raise StorageError(Problem("a part of the result can't be read", facts, fix)) from error


_COMPARED_AS = {
    pa.float16(): pa.float32(),
    pa.string_view(): pa.large_string(),
    pa.binary_view(): pa.large_binary(),
}


def _comparable(column: pa.Array) -> pa.Array:
    """The same values as a type that Arrow can filter and compare."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    if pa.types.is_temporal(column.type):
        return column.cast(pa.string())  # Python has no nanoseconds to count labels by
    return column.cast(_COMPARED_AS.get(column.type, column.type))


def _too_many_labels(name: str) -> GateError:
    facts = {"column": name, "expected": f"at most {MOST_LABELS:,} labels", "found": "more"}
    fix = f"leave gate.{name}.max_shift out; numbers have max_psi"
    return GateError(Problem(f'the gate wants max_shift of "{name}", which holds no labels', facts, fix))


def _share(percent: str) -> float:
    return float(percent.rstrip("%")) / 100
