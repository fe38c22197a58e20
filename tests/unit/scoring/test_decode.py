"""Numpy to Arrow: types, values, ranks, labels, and what can't be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchonnx.errors import ContractError, HookError
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.output_types import column_type, row_shape, validate
from batchonnx.runtime.signature import Dim, TensorSpec
from batchonnx.scoring.decode import Decoder


def bind(*shape: Dim, dtype: str = "float32", kind: Any = "tensor", **how: Any) -> OutputBinding:
    """An output column `c` of model output `y`, typed as the contract types it."""
    key = "int64" if kind == "maps" else None
    spec = TensorSpec("y", dtype, None if kind == "maps" else shape, kind, how.pop("key_dtype", key))
    declared = None if kind == "maps" else row_shape(spec, how.get("batch_axis", 0))
    binding = OutputBinding("c", spec, None, declared, **how)
    return dataclasses.replace(binding, type=column_type(binding))


def decode(
    binding: OutputBinding,
    *batches: Any,
    rows: Sequence[int] | None = None,
    fixed: int | None = None,
    hook: Any = None,
) -> pa.Array:
    decoder = Decoder([binding], {"c": hook}, fixed)
    values = [{"y": batch} for batch in batches]
    (column,) = decoder.decode(values, rows or [len(batch) for batch in batches])
    if binding.type is not None:
        assert column.type == binding.type
    return column


class TestRaw:
    @pytest.mark.parametrize(
        ("shape", "arrow"),
        [
            (("n",), pa.float32()),
            (("n", 1), pa.float32()),
            (("n", 3), pa.list_(pa.float32(), 3)),
            (("n", 2, 3), pa.fixed_shape_tensor(pa.float32(), [2, 3])),
            (("n", "seq"), pa.list_(pa.float32())),
            (("n", "seq", 2), pa.list_(pa.list_(pa.float32()))),
            ((1,), pa.float32()),
        ],
    )
    def test_the_column_s_type_follows_from_the_declared_shape(
        self, shape: tuple[Dim, ...], arrow: pa.DataType
    ) -> None:
        binding = bind(*shape)
        assert binding.type == arrow
        dims = [d if isinstance(d, int) else 4 for d in shape[1:]]
        values = np.arange(5 * int(np.prod(dims)), dtype=np.float32).reshape(5, *dims)
        found = decode(binding, values[:2], values[2:])
        assert np.array_equal(
            np.array([np.array(v).ravel() for v in found.to_pylist()]), values.reshape(5, -1)
        )

    @given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(2, 5))), st.integers(1, 9))
    def test_one_batch_or_many_give_the_same_column(self, values: np.ndarray, step: int) -> None:
        binding = bind("n", values.shape[1])
        parts = [values[i : i + step] for i in range(0, len(values), step)]
        assert str(decode(binding, *parts)) == str(decode(binding, values))

    @pytest.mark.parametrize("shape", [("n",), ("n", 4), ("n", 2, 2)])
    def test_a_single_batch_is_wrapped_without_a_copy(self, shape: tuple[Dim, ...]) -> None:
        values = np.ones([8, *(d for d in shape[1:] if isinstance(d, int))], np.float32)
        column = decode(bind(*shape), values)
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        leaf = storage.values if pa.types.is_fixed_size_list(storage.type) else storage
        assert leaf.buffers()[1].address == values.__array_interface__["data"][0]

    @pytest.mark.parametrize(
        "dtype", ["bool", "float16", "float64", *(f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64))]
    )
    def test_every_type_has_its_column(self, dtype: str) -> None:
        values = np.array([[0, 1], [1, 0]]).astype(dtype)
        assert decode(bind("n", 2, dtype=dtype), values).to_pylist() == values.tolist()

    def test_text_has_too(self) -> None:
        values = np.array([["a", "é"], ["", "c"]], dtype=object)
        assert decode(bind("n", 2, dtype="string"), values).to_pylist() == values.tolist()

    def test_the_padding_of_a_fixed_batch_is_cut_off(self) -> None:
        found = decode(bind(4), np.arange(4, dtype=np.float32), rows=[3], fixed=4)
        assert found.to_pylist() == [0, 1, 2]

    def test_rows_may_be_on_another_axis(self) -> None:
        values = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
        found = decode(bind(2, "n", batch_axis=1), values, rows=[3])
        assert found.to_pylist() == [[1, 4], [2, 5], [3, 6]]

    def test_a_ragged_output_may_differ_from_batch_to_batch(self) -> None:
        found = decode(bind("n", "s"), np.ones((1, 2), np.float32), np.ones((1, 0), np.float32))
        assert found.to_pylist() == [[1, 1], []]

    @pytest.mark.parametrize(
        "values", [np.ones((1, 3), np.float32), np.float32(1), np.ones((9, 3), np.float32)]
    )
    def test_an_output_without_a_row_for_each_row_says_so(self, values: np.ndarray) -> None:
        with pytest.raises(ContractError, match="no row for each input row"):
            decode(bind("n", 3), values, rows=[5])

    def test_an_output_that_is_not_shaped_as_declared_says_so(self) -> None:
        with pytest.raises(ContractError, match="isn't shaped as declared"):
            decode(bind("n", 3), np.ones((5, 4), np.float32))

    def test_a_column_declared_one_wide_may_come_flat_and_the_reverse(self) -> None:
        assert decode(bind("n", 1), np.ones(2, np.float32)).to_pylist() == [1, 1]
        assert decode(bind("n"), np.ones((2, 1), np.float32)).to_pylist() == [1, 1]


class TestClasses:
    scores = hnp.arrays(
        np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-50, 50, width=32)
    )

    @given(scores)
    def test_softmax_sums_to_one_and_keeps_the_order(self, scores: np.ndarray) -> None:
        shares = np.array(decode(bind("n", scores.shape[1], softmax=True), scores).to_pylist())
        shares = shares.reshape(len(scores), -1)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        exact = np.exp(scores.astype(float)) / np.exp(scores.astype(float)).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, exact, rtol=1e-4, atol=1e-30)

    def test_softmax_and_sigmoid_do_not_overflow(self) -> None:
        big = np.array([[1e4, -1e4]], np.float32)
        assert decode(bind("n", 2, softmax=True), big).to_pylist() == [[1, 0]]
        assert decode(bind("n", 2, sigmoid=True), big).to_pylist() == [[1, 0]]

    @given(scores)
    def test_argmax_is_the_first_largest(self, scores: np.ndarray) -> None:
        found = decode(bind("n", scores.shape[1], argmax=True), scores).to_pylist()
        assert found == [row.index(max(row)) for row in scores.tolist()]

    @given(scores, st.integers(1, 5))
    def test_top_k_is_a_stable_descending_sort(self, scores: np.ndarray, k: int) -> None:
        k = min(k, scores.shape[1])
        found = decode(bind("n", scores.shape[1], top_k=k), scores).to_pylist()
        for row, items in zip(scores.tolist(), found, strict=True):
            best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
            assert [(item["label"], item["score"]) for item in items] == [(i, row[i]) for i in best]

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
    def test_the_smallest_and_largest_integers_are_ranked_right(self, dtype: str) -> None:
        limits = np.iinfo(dtype)
        scores = np.array([[limits.min, limits.max, 1]], dtype)
        found = decode(bind("n", 3, dtype=dtype, top_k=3), scores).to_pylist()[0]
        assert [item["score"] for item in found] == sorted(scores[0].tolist(), reverse=True)

    def test_labels_take_the_place_of_positions(self) -> None:
        scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
        labels = ("no", "yes")
        assert decode(bind("n", 2, argmax=True, labels=labels), scores).to_pylist() == ["yes", "no"]
        top = decode(bind("n", 2, top_k=1, labels=labels), scores).to_pylist()
        assert [items[0]["label"] for items in top] == ["yes", "no"]

    def test_threshold_is_reached_by_equality(self) -> None:
        scores = np.array([[0, 0.5], [0, 0.25]], np.float32)
        assert decode(bind("n", 2, index=1, threshold=0.5), scores).to_pylist() == [True, False]
        named = bind("n", 2, index=-1, threshold=0.5, labels=("low", "high"))
        assert decode(named, scores).to_pylist() == ["high", "low"]

    def test_a_row_with_a_nan_has_no_best_class(self) -> None:
        scores = np.array([[0, np.nan], [0, 1]], np.float32)
        assert decode(bind("n", 2, argmax=True), scores).to_pylist() == [None, 1]
        assert decode(bind("n", 2, top_k=1), scores).to_pylist() == [None, [{"label": 1, "score": 1.0}]]
        assert decode(bind("n", 2, index=1, threshold=0.5), scores).to_pylist() == [None, True]

    def test_maps_are_a_matrix_with_sorted_keys(self) -> None:
        maps = [{2: 0.25, 1: 0.75}, {1: 0.5, 2: 0.5}]
        assert decode(bind(kind="maps"), maps).to_pylist() == [[(1, 0.75), (2, 0.25)], [(1, 0.5), (2, 0.5)]]
        assert decode(bind(kind="maps", argmax=True), maps).to_pylist() == [1, 1]
        assert decode(bind(kind="maps", index=1), maps).to_pylist() == [0.25, 0.5]
        words = [{"b": 0.75, "a": 0.25}]
        assert decode(bind(kind="maps", argmax=True, key_dtype="string"), words).to_pylist() == ["b"]


class TestHooks:
    def test_a_hook_s_result_is_the_column(self) -> None:
        binding = bind("n", 2, function="h:f")
        values = np.array([[1, 2], [3, 4]], np.float32)
        assert decode(binding, values, hook=lambda v: v.sum(axis=1)).to_pylist() == [3, 7]
        assert decode(binding, values, hook=lambda v: v * 2).to_pylist() == [[2, 4], [6, 8]]
        assert decode(binding, values, hook=lambda v: [str(x) for x in v[:, 0]]).to_pylist() == ["1.0", "3.0"]

    @pytest.mark.parametrize(
        ("hook", "words"),
        [
            (lambda v: v[:1], "other rows"),
            (lambda v: 1 / 0, "ZeroDivisionError"),
            (lambda v: object(), "no column"),
            (lambda v: None, "no column"),
            (lambda v: "x" * len(v), "no column"),
            (lambda v: {"a": v, "b": v}, "no column"),
            (lambda v: v * 1j, "array of complex"),
            (lambda v: np.stack([v, v], axis=1) * 1j, "array of complex"),
            (lambda v: (x for x in v[:1]), "other rows"),
            (lambda v: pa.array([pa.MonthDayNano([1, 2, 3])] * len(v)), "Parquet can't hold"),
            (lambda v: pa.array([{}] * len(v)), "Parquet can't hold"),
        ],
    )
    def test_what_it_does_wrong_is_told(self, hook: Any, words: str) -> None:
        with pytest.raises(HookError, match=words):
            decode(bind("n", function="h:f"), np.ones(2, np.float32), hook=hook)

    def test_a_hook_that_writes_in_place_is_told(self) -> None:
        def zero(values: np.ndarray) -> np.ndarray:
            values[:] = 0
            return values

        with pytest.raises(HookError, match="ValueError"):
            decode(bind("n", function="h:f"), np.ones(2, np.float32), hook=zero)

    def test_a_type_that_changes_between_batches_is_told(self) -> None:
        binding = dataclasses.replace(bind("n", function="h:f"), type=pa.int64())
        with pytest.raises(HookError, match="changed its type"):
            decode(binding, np.ones(2, np.float32), hook=lambda v: ["a", "b"])

    @pytest.mark.parametrize(
        ("first", "second", "words"),
        [
            (np.zeros((2, 2)), np.zeros((2, 3)), r"\[3\]"),
            ([1, 2], [1.5, 2.5], "double"),
            ([1, 2], ["a", "b"], "string"),
            ([None, None], [1.5, 2.5], r"pa\.float64"),
        ],
    )
    def test_one_that_changes_within_the_first_rows_is_told(
        self, first: Any, second: Any, words: str
    ) -> None:
        returned = iter([first, second])
        values = np.ones(2, np.float32)
        with pytest.raises(HookError, match="changed its type") as failed:
            decode(bind("n", function="h:f"), values, values, hook=lambda v: next(returned))
        assert re.search(words, str(failed.value))

    def test_a_width_that_changes_is_told(self) -> None:
        binding = dataclasses.replace(bind("n", function="h:f"), type=pa.list_(pa.float64(), 2))
        with pytest.raises(HookError, match="changed its type"):
            decode(binding, np.ones(2, np.float32), hook=lambda v: np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (bind("n", 3, index=3), "index 3 is beyond the 3 values"),
        (bind("n", 3, index=-4), "index -4 is beyond"),
        (bind("n", 3, top_k=4), "top_k 4 is more than the 3"),
        (bind("n", argmax=True), "need one list a row"),
        (bind("n", 2, 2, softmax=True), "need one list a row"),
        (bind("n", 3, argmax=True, labels=("a", "b")), "labels has 2 names"),
        (bind("n", 3, threshold=0.5), "add index"),
        (bind("n", threshold=0.5, labels=("a",)), "threshold wants 2"),
        (bind("n", 3, dtype="int64", softmax=True), "need floats"),
        (bind("n", 3, dtype="string", argmax=True), "nothing to rank"),
        (OutputBinding("c", TensorSpec("y", "bfloat16", ("n",)), None, ()), "Arrow has no column"),
    ],
)
def test_what_cannot_be_is_said_by_the_plan(binding: OutputBinding, words: str) -> None:
    faults = validate(binding)
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_output_without_the_batch_axis_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"one scalar|no axis"):
        row_shape(TensorSpec("y", "float32", shape), 1 if shape else 0)


def test_only_the_outputs_that_are_asked_for_are_computed() -> None:
    one, two = bind("n"), dataclasses.replace(bind("n"), name="again")
    assert Decoder([one, two], {}).model_outputs == ("y",)
