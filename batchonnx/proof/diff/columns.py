"""What has become of a column: values that changed, by how much, and which label took the place of which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.planning.types import is_text

MOST_PAIRS, PAIRS_SHOWN = 10_000, 20


@dataclass(frozen=True)
class ColumnChange:
    """A column of rows that both results have.

    type: a's, and b's if it is another; then nothing is compared. compared, changed: rows.
    shift: mean of b - a over all numbers; largest: of the differences' sizes, at the row of `key`; None for
    labels.
    labels: a's label, b's label, rows, the most frequent ones; null is told as "null".
    """

    column: str
    type: str
    compared: int
    changed: int
    shift: float | None
    largest: float | None
    key: str
    labels: tuple[tuple[str, str, int], ...]


@dataclass
class ColumnTally:
    """Adds up pairs of values of one column. tolerance: a relative difference that is no change."""

    column: str
    type: str
    tolerance: float = 0.0
    compared: int = 0
    changed: int = 0
    numbers: int = 0
    total: float = 0.0
    largest: float = -1.0
    key: str = ""
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(
        self, a: pa.Array | pa.ChunkedArray, b: pa.Array | pa.ChunkedArray, name: Callable[[int], str]
    ) -> None:
        """a, b: as many values of one type. name: tells people which row a place in them is."""
        self.compared += len(a)
        a, b = _plain(a), _plain(b)
        sizes = _list_lengths(a), _list_lengths(b)
        if sizes[0] is not None and sizes[1] is not None:
            self._add_lists(a, b, name, sizes[0], sizes[1])
        elif pat.is_floating(a.type) or pat.is_integer(a.type) or pat.is_decimal(a.type):
            changed = self._add_numbers(_numbers(a), _numbers(b), np.arange(len(a)), name)
            self.changed += int(changed.sum())
        elif is_text(a.type) or pat.is_boolean(a.type):
            self._add_labels(a, b)
        else:
            self.changed += sum(x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))

    def result(self) -> ColumnChange:
        """What was added up."""
        shift = self.total / self.numbers if self.numbers else None
        return ColumnChange(
            column=self.column,
            type=self.type,
            compared=self.compared,
            changed=self.changed,
            shift=shift,
            largest=self.largest if self.largest >= 0 else None,
            key=self.key,
            labels=tuple((a, b, n) for (a, b), n in self.labels.most_common(PAIRS_SHOWN)),
        )

    def _add_numbers(
        self, a: np.ndarray, b: np.ndarray, rows: np.ndarray, name: Callable[[int], str]
    ) -> np.ndarray:
        """bool[n]: which have changed. rows: of each value, as `name` counts them."""
        with np.errstate(all="ignore"):
            difference = b - a
            near = np.abs(difference) <= self.tolerance * np.maximum(np.abs(a), np.abs(b))
        changed: np.ndarray = ~((a == b) | (np.isnan(a) & np.isnan(b)) | near)
        known = np.isfinite(difference)
        self.numbers += int(known.sum())
        self.total += float(difference[known].sum())
        sizes = np.where(known, np.abs(difference), -1.0)
        if sizes.size and sizes.max() > self.largest:
            self.largest = float(sizes.max())
            self.key = name(int(rows[int(sizes.argmax())])) if self.largest > 0 else ""
        return changed

    def _add_lists(
        self,
        a: pa.Array,
        b: pa.Array,
        name: Callable[[int], str],
        lengths_a: np.ndarray,
        lengths_b: np.ndarray,
    ) -> None:
        alike = lengths_a == lengths_b
        self.changed += int((~alike).sum())
        places = pa.array(np.flatnonzero(alike))
        a, b, lengths = _plain(a.take(places)), _plain(b.take(places)), lengths_a[alike]
        rows = np.repeat(np.flatnonzero(alike), np.maximum(lengths, 0))
        inner_a, inner_b = _plain(a.flatten()), _plain(b.flatten())
        if pat.is_floating(inner_a.type) or pat.is_integer(inner_a.type):
            changed = self._add_numbers(_numbers(inner_a), _numbers(inner_b), rows, name)
            self.changed += len(np.unique(rows[changed]))
        else:
            self.changed += sum(x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))

    def _add_labels(self, a: pa.Array, b: pa.Array) -> None:
        same = pc.or_(pc.equal(a, b).fill_null(False), pc.and_(a.is_null(), b.is_null()))
        moved = pc.invert(same)
        self.changed += moved.true_count
        pairs = zip(a.filter(moved).to_pylist(), b.filter(moved).to_pylist(), strict=True)
        for old, new in pairs:
            told = ("null" if old is None else str(old), "null" if new is None else str(new))
            if told in self.labels or len(self.labels) < MOST_PAIRS:
                self.labels[told] += 1


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Dictionaries decoded, extensions as what they are stored in, in one piece."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if isinstance(values, pa.ExtensionArray):
        return _plain(values.storage)
    if pat.is_dictionary(values.type):
        return values.dictionary_decode()
    return values.cast(pa.float32()) if pat.is_float16(values.type) else values


def _numbers(values: pa.Array) -> np.ndarray:
    """float64[n], null as NaN."""
    found: np.ndarray = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _list_lengths(values: pa.Array) -> np.ndarray | None:
    """int64[n], -1 for null; None if these are no lists."""
    kind = values.type
    if not (pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind)):
        return None
    lengths: np.ndarray = pc.list_value_length(values).fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)
