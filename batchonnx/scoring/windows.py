"""A model that is run over each row's windows in order, many rows at once, its state carried along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.bindings import Constant, FeatureBinding, OutputBinding, StateBinding, inputs_of
from batchonnx.scoring.axes import move_batch_axis

BLOCK_WINDOWS = 64
"""So many windows of all rows are laid beside each other at a time, whatever the length of a sound."""

Run = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[Any]]


@dataclass(frozen=True)
class Ragged:
    """Several values for each row, one behind the other.

    values: [sum(lengths), …]. lengths: int64[rows].
    """

    values: np.ndarray
    lengths: np.ndarray

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return int(self.values.nbytes)

    def rows(self, count: int) -> Ragged:
        """The first rows."""
        if count == len(self.lengths):
            return self
        lengths = self.lengths[:count]
        return Ragged(self.values[: int(lengths.sum())], lengths)


def as_objects(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """object[n]: arrays of any shapes as the rows of one batch."""
    rows = np.empty(len(arrays), object)
    for place, array in enumerate(arrays):
        rows[place] = array
    return rows


class Windows:
    """Runs a model over windows.

    feature: the one that has windows; features: all of them. states: what is carried along. outputs: the
    columns that are made, which know where a model output counts rows. fixed_batch: rows of every call.
    """

    def __init__(
        self,
        feature: FeatureBinding,
        features: Iterable[FeatureBinding],
        states: Sequence[StateBinding],
        outputs: Iterable[OutputBinding],
        run: Run,
        fixed_batch: int | None,
    ) -> None:
        self._name, self._axis = inputs_of(feature)[0].name, feature.batch_axis
        self._others = dict(_row_axes(one for one in features if one is not feature))
        self._axes = {spec.name: binding.batch_axis for binding in outputs for spec in binding.sources}
        self._states, self._run, self._fixed = states, run, fixed_batch

    def run(self, names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Ragged]:
        """Outputs in the order asked: for each row, one value for each of its windows.

        tensors: as an encoder gives them, with object[n] of [windows, …] for the input that has windows.
        A row's windows see no other row, so who is beside it matters no more than in any batch.
        Raises ContractError for an output that hasn't a value of one shape for each window.
        """
        rows = list(tensors[self._name])
        lengths = np.array([len(row) for row in rows])
        # The longest first: those that have come to their end are always the last ones.
        order = np.argsort(-lengths, kind="stable")
        begins = np.concatenate([[0], np.cumsum(lengths)])[:-1][order]
        fetched = tuple(dict.fromkeys([*names, *(state.output.name for state in self._states)]))
        state = {one.input.name: _zeros(one, len(rows)) for one in self._states}
        fixed = {name: value for name, value in tensors.items() if name != self._name}
        others = {name: np.take(fixed[name], order, axis) for name, axis in self._others.items()}
        found: dict[str, np.ndarray] = {}
        counted = _steps([rows[place] for place in order], self._fixed is not None)
        for step, (count, window) in enumerate(counted):
            feed = {**fixed, **{n: _first(v, count, self._others[n]) for n, v in others.items()}}
            feed[self._name] = move_batch_axis(window, self._axis)
            for one in self._states:
                feed[one.input.name] = _first(state[one.input.name], count, one.batch_axis)
            values = dict(zip(fetched, self._run(fetched, feed), strict=True))
            for one in self._states:
                state[one.input.name] = values[one.output.name]
            going = int(np.count_nonzero(lengths > step))
            for name in dict.fromkeys(names):
                value = _by_row(name, values[name], self._axes.get(name, 0), count)[:going]
                if name not in found:
                    found[name] = np.empty((int(lengths.sum()), *value.shape[1:]), value.dtype)
                elif found[name].shape[1:] != value.shape[1:]:
                    raise _misshapen(name, f"a window's {list(found[name].shape[1:])}", value)
                found[name][begins[:going] + step] = value
        return [Ragged(found[name], lengths) for name in names]


def _row_axes(features: Iterable[FeatureBinding]) -> Iterator[tuple[str, int]]:
    for feature in features:
        if isinstance(feature, Constant) and not feature.per_row:
            continue
        for spec in inputs_of(feature):
            yield spec.name, feature.batch_axis


def _steps(rows: Sequence[np.ndarray], keeps_all: bool) -> Iterator[tuple[int, np.ndarray]]:
    """For each window: how many rows are fed, and theirs, [count, …]. rows: the longest first.

    keeps_all: feed rows that have ended, too, with zeros: the model's batch is fixed.
    """
    most = len(rows[0])
    for begin in range(0, most, BLOCK_WINDOWS):
        size = min(BLOCK_WINDOWS, most - begin)
        block = np.zeros((size, len(rows), *rows[0].shape[1:]), rows[0].dtype)
        going = np.zeros(size, int)
        for place, row in enumerate(rows):
            part = row[begin : begin + size]
            block[: len(part), place] = part
            going[: len(part)] += 1
        for step in range(size):
            count = len(rows) if keeps_all else int(going[step])
            yield count, block[step, :count]


def _by_row(name: str, value: np.ndarray, axis: int, count: int) -> np.ndarray:
    """An output with its rows first; there has to be one for each that was fed."""
    if value.ndim <= axis or value.shape[axis] != count:
        raise _misshapen(name, f"{count} rows on axis {axis}", value)
    return np.moveaxis(value, axis, 0)


def _misshapen(name: str, expected: str, value: np.ndarray) -> ContractError:
    facts = {"expected": expected, "found": f"{value.dtype}{list(value.shape)}"}
    fix = "set batch_axis of its column in outputs, or leave out what isn't one value for each window"
    return ContractError(Problem(f'model output "{name}" has no value for each window', facts, fix))


def _zeros(state: StateBinding, rows: int) -> np.ndarray:
    shape = [rows if axis == state.batch_axis else dim for axis, dim in enumerate(state.shape)]
    return np.zeros(shape, np.dtype(state.input.dtype))


def _first(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """The first so many rows, C-contiguous; the array itself where those are all."""
    if values.shape[axis] == count:
        return values
    return np.ascontiguousarray(values[(slice(None),) * axis + (slice(count),)])
