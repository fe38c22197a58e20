"""How a result's columns are distributed, by a sample of its rows that is bounded whatever its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from batchonnx.ledger.output import Output
from batchonnx.ledger.records import ColumnProfile, Commit, PlanRecord, StoredFile
from batchonnx.parts.layout import Layout
from batchonnx.parts.read import read_file
from batchonnx.planning.types import column_shape, is_text

SAMPLE_ROWS = 1 << 18
"""So many rows, evenly spread over parts and row groups, stand for a result that has more."""

MOST_PARTS = 64
BINS = 40
TAILS = (0.001, 0.999)
"""Quantiles at which a histogram ends; what lies beyond is counted in the outer bins."""

FEW_VALUES = 20
"""Integers of so few different values are taken for labels."""

LABELS_KEPT, LABEL_WIDTH, MOST_LABELS = 20, 200, 10_000


def predicted_columns(plan: PlanRecord, schema: pa.Schema | None) -> list[str]:
    """A result's columns that aren't carried along from the input; none where its records don't tell them."""
    kept = set(plan.job.get("keep", ()))
    return [name for name in schema.names if name not in kept] if schema is not None else []


@dataclass
class _Column:
    rows: int = 0
    nulls: int = 0
    values: int = 0
    numbers: list[np.ndarray] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


def profile_columns(
    output: Output,
    layout: Layout,
    commits: Sequence[Commit],
    columns: Sequence[str],
    like: Mapping[str, ColumnProfile] | None = None,
    rows: int = SAMPLE_ROWS,
) -> tuple[ColumnProfile, ...]:
    """Profiles of some columns of a published result.

    like: profiles whose histograms are to be compared with: their edges are taken. rows: looked at, about.
    Raises StorageError, OSError, ArrowException, KeyError, ValueError where a part can't be read.
    """
    if not columns:
        return ()
    parts = [part for commit in commits for part in commit.parts if part.rows]
    total = sum(part.rows for part in parts)
    found = {name: _Column() for name in columns}
    types: dict[str, pa.DataType] = {}
    for batch in _sampled(output, layout, parts, columns, rows):
        for name in columns:
            values = batch.column(name)
            types[name] = values.type
            _look(found[name], values, rows * batch.num_rows // min(total, rows))
    profiles = like or {}
    return tuple(_profile(name, types[name], found[name], profiles.get(name)) for name in types)


def _sampled(
    output: Output, layout: Layout, parts: Sequence[StoredFile], columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    total = sum(part.rows for part in parts)
    if total <= rows:
        chosen = list(parts)
    else:
        chosen = [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, MOST_PARTS).astype(int))]
    share = rows / max(1, sum(part.rows for part in chosen))
    for part in chosen:
        with output.open(part.path) as source:
            yield from _some_rows(source, layout, part, columns, min(1.0, share))


def _some_rows(
    source: pa.NativeFile, layout: Layout, part: StoredFile, columns: Sequence[str], share: float
) -> Iterator[pa.RecordBatch]:
    """A share of a part's rows: row groups, evenly spread, where the format has them; else the first."""
    wanted = max(1, round(part.rows * share))
    if layout.format == "parquet" and not layout.partition_by and share < 1:
        with pq.ParquetFile(source) as file:
            groups = file.num_row_groups
            count = min(groups, max(1, round(groups * share)))
            chosen = [int((i + 0.5) * groups / count) for i in range(count)]
            batches: Iterable[pa.RecordBatch] = file.iter_batches(row_groups=chosen, columns=list(columns))
            yield from _first(batches, wanted)
    else:
        yield from _first(read_file(source, layout, part.path, columns), wanted)


def _first(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0:
            return


def _look(column: _Column, values: pa.Array, most: int) -> None:
    """Add a batch's values; of lists, evenly spread ones, about `most` of them."""
    column.rows += len(values)
    flat = _flat(values)
    if flat is None:
        column.nulls += values.null_count
        return
    known = flat.filter(pc.invert(pc.is_null(flat, nan_is_null=True)))
    column.nulls += len(flat) - len(known) + (values.null_count if flat is not values else 0)
    known = known[:: max(1, len(known) // max(1, most))] if len(known) > 2 * most else known
    column.values += len(known)
    if pat.is_floating(known.type) or pat.is_integer(known.type) or pat.is_decimal(known.type):
        column.numbers.append(known.cast(pa.float64(), safe=False).to_numpy())
    elif is_text(known.type) or pat.is_boolean(known.type):
        counts = pc.value_counts(known)
        told = (str(label)[:LABEL_WIDTH] for label in counts.field(0).to_pylist())
        for label, count in zip(told, counts.field(1).to_pylist(), strict=True):
            if label in column.labels or len(column.labels) < MOST_LABELS:
                column.labels[label] += count


def _flat(values: pa.Array) -> pa.Array | None:
    """The innermost values of a column; None for those that have no distribution to show."""
    value = column_shape(values.type).value
    is_shown = pat.is_boolean(value) or pat.is_floating(value) or pat.is_integer(value)
    if not (is_shown or pat.is_decimal(value) or is_text(value)):
        return None
    while values.type != value:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif pat.is_dictionary(values.type):
            values = values.dictionary_decode()
        else:
            values = values.flatten()
    if pat.is_float16(value):
        return values.cast(pa.float32())
    return values.cast(pa.large_string()) if pat.is_string_view(value) else values


def _profile(name: str, kind: pa.DataType, column: _Column, like: ColumnProfile | None) -> ColumnProfile:
    told = ColumnProfile(name, str(kind), column.rows, column.nulls, column.values)
    if not column.numbers:
        return _with_labels(told, column.labels)
    numbers = np.concatenate(column.numbers)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return told
    is_whole = pat.is_integer(column_shape(kind).value)
    if is_whole and not (like is not None and like.edges):
        values, counts = np.unique(finite, return_counts=True)
        if len(values) <= FEW_VALUES:
            return _with_labels(
                told, Counter({f"{v:.0f}": int(n) for v, n in zip(values, counts, strict=True)})
            )
    edges = np.array(like.edges) if like is not None and like.edges else _edges(finite)
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return ColumnProfile(
        **{
            **vars(told),
            "low": float(finite.min()),
            "high": float(finite.max()),
            "mean": float(finite.mean()),
            "edges": tuple(edges.tolist()),
            "counts": tuple(counts.tolist()),
        }
    )


def _with_labels(told: ColumnProfile, labels: Counter[str]) -> ColumnProfile:
    return ColumnProfile(**{**vars(told), "labels": tuple(labels.most_common(LABELS_KEPT))})


def _edges(finite: np.ndarray) -> np.ndarray:
    """float64[BINS + 1], increasing."""
    low, high = np.quantile(finite, TAILS)
    edges = np.linspace(low, high, BINS + 1)
    if np.all(np.diff(edges) > 0) and np.all(np.isfinite(edges)):
        return edges
    width = max(abs(float(low)) * 1e-3, 0.5)
    return np.array([low - width, low + width])
