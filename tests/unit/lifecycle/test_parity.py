"""How far apart two answers are: figures that can be worked out by hand, and what holds for all arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchonnx.lifecycle.gates import Gates, judge
from batchonnx.lifecycle.parity import Parity, measure_parity

FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)


def test_differences_are_absolute_relative_and_both() -> None:
    a, b = np.array([[0.5, 100.0]]), np.array([[0.25, 101.0]])
    found = measure_parity("y", a, b)
    assert (found.max_abs, found.mean_abs) == (1.0, 0.625)
    assert found.max_rel == 0.5
    assert found.max_diff == 0.25 / 1.5  # where values are large, 1 in 101
    assert np.allclose(b, a, rtol=found.max_diff, atol=found.max_diff)
    assert not np.allclose(b, a, rtol=0.99 * found.max_diff, atol=0.99 * found.max_diff)
    assert (found.rows, found.values, found.unlike) == (1, 2, 0)


def test_classes_are_told_by_their_order_and_nothing_else() -> None:
    a = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    b = np.array([[10.0, 30.0, 20.0], [1.0, 2.0, 0.0]])
    found = measure_parity("y", a, b)
    assert found.label_agreement == 0.5
    assert (found.rank_agreement, found.top_k) == (4 / 6, 3)  # b swaps two of the second row's three places


def test_text_integers_and_booleans_agree_or_don_t() -> None:
    assert (
        measure_parity("y", np.array(["a", "b"], object), np.array(["a", "c"], object)).label_agreement == 0.5
    )
    found = measure_parity("y", np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]]))
    assert (found.label_agreement, found.max_abs, found.mean_cosine) == (0.5, 1.0, None)
    assert measure_parity("y", np.array([True, False]), np.array([True, True])).label_agreement == 0.5


def test_a_value_that_only_one_model_has_is_told_apart_from_a_difference() -> None:
    a = np.array([[np.nan, np.inf, 1.0, np.inf]])
    found = measure_parity("y", a, np.array([[np.nan, np.inf, np.nan, -np.inf]]))
    assert (found.unlike, found.max_abs) == (2, None)
    (miss,) = judge(Gates(), [found], None)
    assert (miss.gate, miss.output) == ("outputs", "y")


def test_neighbours_are_those_in_the_same_direction() -> None:
    rows = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]])
    assert measure_parity("y", rows, rows * 7).neighbour_agreement == 1.0
    assert measure_parity("y", rows, rows[[0, 2, 1, 3]]).neighbour_agreement == 0.0


@given(FLOATS)
def test_a_model_agrees_with_itself(values: np.ndarray) -> None:
    found = measure_parity("y", values, values.copy())
    assert found.unlike == 0
    assert (found.max_abs, found.max_rel, found.max_diff) == (0.0, 0.0, 0.0)
    assert found.label_agreement in (None, 1.0)
    assert found.rank_agreement in (None, 1.0)
    assert found.min_cosine is None or found.min_cosine > 1 - 1e-6


@given(FLOATS, st.floats(0.5, 2.0, width=32))
def test_scaling_an_answer_turns_no_row_and_changes_no_label(values: np.ndarray, scale: float) -> None:
    found = measure_parity("y", values.astype(np.float64), values.astype(np.float64) * scale)
    assert found.min_cosine is None or found.min_cosine > 1 - 1e-6
    assert found.label_agreement in (None, 1.0)
    assert found.max_rel is not None
    assert found.max_rel <= abs(1 - 1 / max(scale, 1 / scale)) + 1e-9


@given(FLOATS, FLOATS)
def test_what_can_be_compared_gives_shares_and_what_can_t_is_refused(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        with pytest.raises(ValueError, match="y"):
            measure_parity("y", a, b)
        return
    found = measure_parity("y", a, b)
    for share in (found.label_agreement, found.rank_agreement, found.neighbour_agreement):
        assert share is None or 0 <= share <= 1
    assert found.max_rel is None or 0 <= found.max_rel <= 2
    assert found.mean_cosine is None or -1 <= found.mean_cosine <= 1


PARITY = Parity("y", 10, 20, max_diff=0.3, mean_cosine=0.9, label_agreement=0.8)


@pytest.mark.parametrize(
    ("gates", "missed"),
    [
        (Gates(), []),
        (Gates(max_diff=0.3, min_agreement=0.8, min_cosine=0.9, min_speedup=2.0), []),
        (Gates(max_diff=0.29), [("max-diff", "y", 0.3)]),
        (Gates(min_agreement=0.81), [("min-agreement", "y", 0.8)]),
        (Gates(min_cosine=0.95, min_speedup=2.1), [("min-cosine", "y", 0.9), ("min-speedup", None, 2.0)]),
    ],
)
def test_a_gate_says_which_output_missed_it(
    gates: Gates, missed: list[tuple[str, str | None, float]]
) -> None:
    assert [(one.gate, one.output, one.found) for one in judge(gates, [PARITY], 2.0)] == missed


def test_how_much_a_gate_was_missed_by_is_told() -> None:
    (miss,) = judge(Gates(min_agreement=0.95), [PARITY], None)
    assert miss.told == "0.8 is under 0.95 by 0.15"


def test_a_gate_that_nothing_can_be_measured_on_isn_t_passed() -> None:
    bare = Parity("y", 10, 10, max_diff=0.0)
    assert [m.gate for m in judge(Gates(min_agreement=0.5, min_speedup=1), [bare], None)] == [
        "min-agreement",
        "min-speedup",
    ]
