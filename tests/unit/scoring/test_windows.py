"""A model run over windows: as if each row were alone, its state carried from one window to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.errors import ContractError
from batchonnx.planning.bindings import AudioColumn, Constant, OutputBinding, Sound, StateBinding
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.windows import Ragged, Windows, as_objects

SOUND = Sound(8_000, None, 2, 2, 0, False, False, 60)
INPUT = TensorSpec("x", "float32", ("n", 2))
FEATURE = AudioColumn(INPUT, "sound", "bytes", "/", SOUND, (2,))
STATE = StateBinding(
    TensorSpec("state", "float32", (3, "n", 1)), TensorSpec("next", "float32", (3, "n", 1)), (3, 0, 1), 1
)

OUTPUTS = [
    OutputBinding("total", TensorSpec("sum", "float32", ("n", 1)), pa.list_(pa.float32()), (1,)),
    OutputBinding("kept", STATE.output, None, (3, 1), batch_axis=1, of_windows=True),
]


class Summing:
    """sum: all that a row's windows have held so far, times its weight; keeps what it was fed."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
        assert all(tensor.flags.c_contiguous for tensor in tensors.values())
        self.batches.append(len(tensors["x"]))
        after = tensors["state"] + tensors["x"].sum(axis=1)[None, :, None]
        values = {"next": after, "sum": after[0] * tensors.get("weight", np.ones((1, 1), np.float32))}
        return [values[name] for name in names]


def expected(row: np.ndarray) -> list[float]:
    return np.cumsum(row.sum(axis=1)).tolist()


def make(lengths: Sequence[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(0, 9, (length, 2)).astype(np.float32) for length in lengths]


def listed(found: Ragged) -> list[list[float]]:
    ends = np.cumsum(found.lengths)
    return [found.values[end - n : end, 0].tolist() for end, n in zip(ends, found.lengths, strict=True)]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=9), fixed=st.booleans())
def test_each_row_gets_what_it_would_get_alone(lengths: list[int], fixed: bool) -> None:
    rows, model = make(lengths), Summing()
    runner = Windows(FEATURE, [FEATURE], [STATE], OUTPUTS, model.run, len(rows) if fixed else None)
    (found,) = runner.run(["sum"], {"x": as_objects(rows)})
    assert listed(found) == [expected(row) for row in rows]
    assert len(model.batches) == max(lengths)
    at_step = [len(rows) if fixed else sum(n > step for n in lengths) for step in range(max(lengths))]
    assert model.batches == at_step


def test_what_a_row_has_once_goes_along_with_each_of_its_windows() -> None:
    weights = Constant(TensorSpec("weight", "float32", ("n", 1)), np.ones(1, np.float32), per_row=True)
    rows = make([1, 3, 2])
    runner = Windows(FEATURE, [FEATURE, weights], [STATE], OUTPUTS, Summing().run, None)
    tensors = {"x": as_objects(rows), "weight": np.array([[1], [10], [100]], np.float32)}
    (found,) = runner.run(["sum"], tensors)
    weighted = zip((1, 10, 100), rows, strict=True)
    assert listed(found) == [[weight * value for value in expected(row)] for weight, row in weighted]


def test_the_state_may_be_asked_for_too_wherever_it_counts_rows() -> None:
    rows = make([2, 4])
    runner = Windows(FEATURE, [FEATURE], [STATE], OUTPUTS, Summing().run, None)
    total, state = runner.run(["sum", "next"], {"x": as_objects(rows)})
    np.testing.assert_array_equal(state.values, np.repeat(total.values[:, None], 3, axis=1))
    (column,) = Decoder([OUTPUTS[1]], {}).decode([{"next": state}], [2])
    assert [len(windows) for windows in column.to_pylist()] == [2, 4]


@pytest.mark.parametrize("value", [np.zeros((3, 1)), np.zeros(()), np.zeros((1, 2))])
def test_an_output_without_a_value_for_each_window_is_named(value: np.ndarray) -> None:
    def run(names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
        return [value]

    runner = Windows(FEATURE, [FEATURE], [], OUTPUTS, run, None)
    with pytest.raises(ContractError, match='model output "sum" has no value for each window'):
        runner.run(["sum"], {"x": as_objects(make([2, 2]))})


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_padded_batch_is_cut_by_rows_not_by_windows(cut: int) -> None:
    ragged = Ragged(np.arange(6, dtype=np.float32)[:, None], np.array([1, 3, 2]))
    assert listed(ragged.rows(cut)) == [[0], [1, 2, 3], [4, 5]][:cut]


def test_a_column_has_a_list_for_each_row() -> None:
    source = TensorSpec("sum", "float32", ("n", 1))
    binding = OutputBinding("c", source, pa.list_(pa.bool_()), (1,), threshold=3.0, of_windows=True)
    batches = [
        {"sum": Ragged(np.arange(4, dtype=np.float32)[:, None], np.array([1, 3]))},
        {"sum": Ragged(np.arange(4, dtype=np.float32)[::-1, None].copy(), np.array([2, 2]))},
    ]
    (found,) = Decoder([binding], {}).decode(batches, [2, 1])
    assert found.type == pa.list_(pa.bool_())
    assert found.to_pylist() == [[False], [False, False, True], [True, False]]
