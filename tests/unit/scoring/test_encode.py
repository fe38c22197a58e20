"""Arrow to numpy: right values, no needless copy, and a bad row is named."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.errors import HookError
from batchonnx.job.spec import BytesWindow
from batchonnx.planning.bindings import (
    BytesColumn,
    Constant,
    FeatureBinding,
    HookFeature,
    StackedScalars,
    TensorColumn,
)
from batchonnx.runtime.signature import Dim, TensorSpec
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode import Encoder


def spec(dtype: str = "float32", *row: Dim) -> TensorSpec:
    return TensorSpec("x", dtype, ("n", *row))


def encode(
    binding: FeatureBinding, columns: dict[str, Any], batch_rows: int = 4, **hooks: Callable[..., object]
) -> np.ndarray:
    """All rows of a chunk, encoded batch by batch."""
    chunk = pa.record_batch(columns)
    tensors = Encoder([binding], batch_rows, hooks).load(chunk)
    starts = range(0, chunk.num_rows, batch_rows)
    parts = [tensors(i, min(i + batch_rows, chunk.num_rows))["x"].copy() for i in starts]
    return np.concatenate(parts)


def address(array: np.ndarray | pa.Array) -> int:
    if isinstance(array, np.ndarray):
        return int(array.__array_interface__["data"][0])
    return int(array.buffers()[-1].address)


class TestScalars:
    def test_columns_are_stacked_side_by_side(self) -> None:
        columns = {"a": np.arange(10, dtype=np.float32), "b": -np.arange(10, dtype=np.float32)}
        found = encode(StackedScalars(spec("float32", 2), ("b", "a"), (2,)), columns)
        np.testing.assert_array_equal(found, np.stack([columns["b"], columns["a"]], axis=1))

    @given(
        rows=st.integers(1, 300), width=st.integers(2, 9), batch=st.integers(1, 64), offset=st.integers(0, 5)
    )
    def test_any_slice_into_any_batches_gives_the_same_matrix(
        self, rows: int, width: int, batch: int, offset: int
    ) -> None:
        matrix = np.random.default_rng(0).standard_normal((rows + offset, width)).astype(np.float32)
        names = tuple(f"c{i}" for i in range(width))
        columns = {n: pa.array(matrix[:, i]).slice(offset) for i, n in enumerate(names)}
        found = encode(StackedScalars(spec("float32", width), names, (width,)), columns, batch)
        np.testing.assert_array_equal(found, matrix[offset:])

    @pytest.mark.parametrize("row_shape", [(), (1,)])
    def test_one_column_alone_is_viewed(self, row_shape: tuple[int, ...]) -> None:
        column = pa.array(np.arange(8, dtype=np.float32))
        encoder = Encoder([StackedScalars(spec(), ("a",), row_shape)], 8, {})
        tensor = encoder.load(pa.record_batch({"a": column}))(0, 8)["x"]
        assert tensor.shape == (8, *row_shape)
        assert address(tensor) == address(column)

    @pytest.mark.parametrize(
        "source", [pa.float32(), pa.float64(), pa.int16(), pa.bool_(), pa.decimal128(22, 2)]
    )
    def test_a_null_is_nan_in_a_float_tensor(self, source: pa.DataType) -> None:
        column = pa.array([1, None, 0], pa.int64()).cast(source)
        found = encode(StackedScalars(spec(), ("a",), ()), {"a": column})
        np.testing.assert_array_equal(found, np.array([1, np.nan, 0], np.float32))

    def test_a_null_becomes_the_fill_and_a_nan_stays(self) -> None:
        column = pa.array([1.0, None, float("nan")], pa.float32())
        found = encode(StackedScalars(spec(), ("a",), (), fill=7), {"a": column})
        np.testing.assert_array_equal(found, np.array([1, 7, np.nan], np.float32))

    def test_a_fill_that_the_column_cannot_hold_is_still_the_fill(self) -> None:
        column = pa.array([1, None], pa.int32())
        found = encode(StackedScalars(spec("float64"), ("a",), (), fill=0.5), {"a": column})
        assert found.tolist() == [1.0, 0.5]

    @pytest.mark.parametrize(
        ("column", "dtype"),
        [
            (pa.array([1, None]), "int64"),
            (pa.array([True, None]), "bool"),
            (pa.array(["a", None]), "string"),
            (pa.array(["a", None]).dictionary_encode(), "string"),
        ],
    )
    def test_a_null_that_has_no_nan_is_named_by_column_and_row(self, column: pa.Array, dtype: str) -> None:
        with pytest.raises(BadRow) as caught:
            encode(StackedScalars(spec(dtype), ("a",), ()), {"a": column})
        assert (caught.value.row, caught.value.column) == (1, "a")

    def test_text_is_given_as_python_strings(self) -> None:
        for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
            column = pa.array(["a", "", "é\U0001f600"], pa.string()).cast(kind)
            found = encode(StackedScalars(spec("string"), ("a",), ()), {"a": column})
            assert found.dtype == object
            assert found.tolist() == ["a", "", "é\U0001f600"]

    @pytest.mark.parametrize(
        ("values", "source", "dtype", "cast", "row"),
        [
            ([0, 2**24 + 1], pa.int64(), "float32", False, 1),
            ([0, 2**53 + 1], pa.int64(), "float64", False, 1),
            ([0, 2**31], pa.int64(), "int32", True, 1),
            ([-1], pa.int8(), "uint8", True, 0),
            ([2**64 - 1], pa.uint64(), "int64", True, 0),
            ([1.0, float("nan")], pa.float32(), "int64", True, 1),
            ([1.0, 2.0**63], pa.float64(), "int64", True, 1),
            ([1.0, 1.5], pa.float64(), "int64", False, 1),
            ([0.0, 1e300], pa.float64(), "float32", True, 1),
            ([float("-inf"), -70000.0], pa.float32(), "float16", True, 1),
            ([0, 70000], pa.int32(), "float16", True, 1),
            ([Decimal(1), Decimal("1.5")], pa.decimal128(20, 2), "int64", False, 1),
            ([Decimal(1), Decimal(2**63)], pa.decimal128(30, 2), "int64", True, 1),
            ([Decimal(1), Decimal(-1)], pa.decimal64(10, 0), "uint8", True, 1),
            ([Decimal(1), Decimal(10**50)], pa.decimal256(60, 0), "float32", True, 1),
        ],
    )
    def test_a_value_that_would_be_lost_names_its_row(
        self, values: list[float], source: pa.DataType, dtype: str, cast: bool, row: int
    ) -> None:
        binding = StackedScalars(spec(dtype), ("a",), (), cast=cast)
        with pytest.raises(BadRow) as caught:
            encode(binding, {"a": pa.array(values, source)})
        assert caught.value.row == row

    def test_infinity_stays_what_it_was(self) -> None:
        values = np.array([np.inf, -np.inf, np.nan, 1e-300])
        found = encode(StackedScalars(spec("float32"), ("a",), ()), {"a": values})
        np.testing.assert_array_equal(found, values.astype(np.float32))

    @pytest.mark.parametrize(
        "kind",
        [
            pa.decimal32(9, 2),
            pa.decimal64(18, 2),
            pa.decimal128(38, 2),
            pa.decimal256(70, 2),
            pa.decimal128(5, -2),
        ],
    )
    def test_decimals_become_integers_digit_by_digit(self, kind: pa.DataType) -> None:
        values = [Decimal(700), None, Decimal(-300)]
        found = encode(StackedScalars(spec("int64"), ("a",), (), fill=-1), {"a": pa.array(values, kind)})
        assert found.tolist() == [700, -1, -300]

    @given(st.lists(st.decimals(-(2**63), 2**63 - 1, places=3), min_size=1, max_size=5))
    def test_no_digit_of_a_large_decimal_is_lost(self, values: list[Decimal]) -> None:
        column = pa.array(values, pa.decimal128(38, 3))
        found = encode(StackedScalars(spec("int64"), ("a",), (), cast=True), {"a": column}, 8)
        assert found.tolist() == [int(value) for value in values]

    @pytest.mark.parametrize(
        ("source", "dtype", "fill"),
        [
            (pa.int64(), "float64", 0.5),
            (pa.int64(), "float16", 0.5),
            (pa.float32(), "float64", 0.1),
            (pa.float16(), "float16", 0.5),
            (pa.float16(), "float32", -1),
            (pa.bool_(), "float32", 0.5),
            (pa.bool_(), "bool", True),
            (pa.bool_(), "int8", -1),
            (pa.uint8(), "int16", -300),
            (pa.decimal128(5, 2), "int32", 70_000),
        ],
    )
    def test_the_fill_is_of_the_tensors_type_whatever_the_columns(
        self, source: pa.DataType, dtype: str, fill: float
    ) -> None:
        column = pa.array([1, None, 0], pa.float32()).cast(source)
        found = encode(StackedScalars(spec(dtype), ("a",), (), fill=fill), {"a": column})
        assert found.dtype == dtype
        assert found.tolist() == [1, np.array(fill, dtype).item(), 0]

    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
    def test_a_cast_that_was_asked_for_rounds_as_numpy_does(self, values: list[int]) -> None:
        binding = StackedScalars(spec("float32"), ("a",), (), cast=True)
        found = encode(binding, {"a": pa.array(values, pa.int64())})
        np.testing.assert_array_equal(found, np.array(values, np.int64).astype(np.float32))

    @pytest.mark.parametrize("width", [1, 2])
    def test_batches_may_be_larger_than_any_chunk(self, width: int) -> None:
        names = tuple("ab"[:width])
        columns = {name: np.arange(9, dtype=np.float32) for name in names}
        encoder = Encoder([StackedScalars(spec("float32", width), names, (width,))], 2**31 - 1, {})
        for rows in (3, 9, 5):
            tensor = encoder.load(pa.record_batch(columns).slice(0, rows))(0, rows)["x"]
            np.testing.assert_array_equal(tensor, np.stack([np.arange(rows)] * width, 1))


class TestTensors:
    @pytest.mark.parametrize("offset", [0, 3])
    def test_a_fixed_size_list_of_floats_is_the_tensor(self, offset: int) -> None:
        flat = pa.array(np.arange(24, dtype=np.float32))
        column = pa.FixedSizeListArray.from_arrays(flat, 4).slice(offset)
        encoder = Encoder([TensorColumn(spec("float32", 4), "t", (4,))], 6, {})
        tensor = encoder.load(pa.record_batch({"t": column}))(1, 3)["x"]
        np.testing.assert_array_equal(tensor, np.arange(24, dtype=np.float32).reshape(6, 4)[offset:][1:3])
        assert address(tensor) == address(flat) + (offset + 1) * 16

    def test_lists_of_equal_length_are_viewed_too(self) -> None:
        flat = pa.array(np.arange(12, dtype=np.float32))
        column = pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12], pa.int32()), flat).slice(1)
        encoder = Encoder([TensorColumn(spec("float32", None), "t", (None,))], 4, {})
        tensor = encoder.load(pa.record_batch({"t": column}))(0, 3)["x"]
        assert address(tensor) == address(flat) + 12
        assert tensor.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]

    def test_a_tensor_column_is_viewed(self) -> None:
        values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
        encoder = Encoder([TensorColumn(spec("float32", 2, 3), "t", (2, 3))], 4, {})
        tensor = encoder.load(pa.record_batch({"t": column}))(0, 4)["x"]
        np.testing.assert_array_equal(tensor, values)
        assert address(tensor) == address(column.storage.values)

    def test_a_permuted_tensor_is_read_in_its_logical_order(self) -> None:
        logical = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        stored = logical.transpose(0, 2, 1)  # rows of [4, 3], seen as [3, 4]
        kind = pa.fixed_shape_tensor(pa.float32(), [4, 3], permutation=[1, 0])
        storage = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(stored).ravel()), 12)
        column = pa.ExtensionArray.from_storage(kind, storage)
        found = encode(TensorColumn(spec("float32", 3, 4), "t", (3, 4)), {"t": column})
        np.testing.assert_array_equal(found, logical)

    def test_a_flat_list_is_seen_in_the_shape_that_the_model_wants(self) -> None:
        column = pa.array([list(range(6)), list(range(6, 12))], pa.list_(pa.float32(), 6))
        found = encode(TensorColumn(spec("float32", 2, 3), "t", (2, 3)), {"t": column})
        assert found.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]

    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float32(), 2), pa.list_(pa.float32()), pa.large_list(pa.float32())]
    )
    def test_null_rows_and_null_elements_are_nan(self, kind: pa.DataType) -> None:
        column = pa.array([[1, 2], None, [None, 4]], kind)
        found = encode(TensorColumn(spec("float32", 2), "t", (2,)), {"t": column})
        np.testing.assert_array_equal(found, np.array([[1, 2], [np.nan] * 2, [np.nan, 4]], np.float32))

    @pytest.mark.parametrize("column", [[[1, 2], None], [[1, 2], [3, None]]])
    def test_a_null_among_integers_names_its_row(self, column: list[Any]) -> None:
        with pytest.raises(BadRow) as caught:
            encode(
                TensorColumn(spec("int64", 2), "t", (2,)), {"t": pa.array(column, pa.list_(pa.int64(), 2))}
            )
        assert caught.value.row == 1

    def test_nulls_among_integers_take_the_fill(self) -> None:
        column = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
        found = encode(TensorColumn(spec("int64", 2), "t", (2,), fill=-1), {"t": column})
        assert found.tolist() == [[1, 2], [-1, -1], [3, -1]]

    def test_the_first_row_of_another_length_is_named(self) -> None:
        column = pa.array([[1.0, 2.0], [1.0, 2.0], [3.0]], pa.list_(pa.float32()))
        with pytest.raises(BadRow, match="a list of 1") as caught:
            encode(TensorColumn(spec("float32", None), "t", (None,)), {"t": column})
        assert caught.value.row == 2

    def test_only_the_rows_of_one_batch_have_to_be_of_one_length(self) -> None:
        lists = [[1.0], [2.0], [3.0, 4.0], [5.0, 6.0], [7.0], [8.0, 9.0]]
        binding = TensorColumn(spec("float32", None), "t", (None,))
        tensors = Encoder([binding], 2, {}).load(pa.record_batch({"t": pa.array(lists)}))
        assert tensors(0, 2)["x"].tolist() == [[1], [2]]
        assert tensors(2, 4)["x"].tolist() == [[3, 4], [5, 6]]
        with pytest.raises(BadRow) as caught:
            tensors(4, 6)
        assert caught.value.row == 5

    def test_inner_lists_of_another_length_name_their_row(self) -> None:
        column = pa.array([[[1.0], [2.0]], [[3.0], [4.0, 5.0]]], pa.list_(pa.list_(pa.float32())))
        with pytest.raises(BadRow) as caught:
            encode(TensorColumn(spec("float32", None, None), "t", (None, None)), {"t": column})
        assert caught.value.row == 1

    def test_lists_of_a_length_that_the_model_does_not_take_are_refused(self) -> None:
        with pytest.raises(BadRow, match="2 values, 3 are wanted"):
            encode(TensorColumn(spec("float32", 3), "t", (3,)), {"t": pa.array([[1.0, 2.0]])})

    def test_the_batch_axis_is_moved_to_where_the_model_has_it(self) -> None:
        column = pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float32(), 3))
        binding = TensorColumn(TensorSpec("x", "float32", (3, "n")), "t", (3,), batch_axis=1)
        tensor = Encoder([binding], 2, {}).load(pa.record_batch({"t": column}))(0, 2)["x"]
        assert tensor.tolist() == [[1, 4], [2, 5], [3, 6]]
        assert tensor.flags.c_contiguous


class TestBytes:
    def window(self, **options: Any) -> BytesColumn:
        return BytesColumn(spec("int32", None), "b", BytesWindow(**options))

    def test_the_front_is_left_aligned_and_the_back_right_aligned(self) -> None:
        found = encode(self.window(head=3, tail=3, pad=-1), {"b": pa.array([b"ab", b"abcdef", b""])})
        a = ord("a")
        assert found.tolist() == [
            [a, a + 1, -1, -1, a, a + 1],
            [a, a + 1, a + 2, a + 3, a + 4, a + 5],
            [-1] * 6,
        ]

    def test_white_space_is_stripped_within_the_window_only(self) -> None:
        found = encode(self.window(head=2, tail=1, window=4, strip=True), {"b": pa.array([b"  xy   z  \n"])})
        assert found.tolist() == [[ord("x"), ord("y"), ord("z")]]

    def test_a_null_is_a_bad_row(self) -> None:
        with pytest.raises(BadRow) as caught:
            encode(self.window(head=1), {"b": pa.array([b"a", None])})
        assert caught.value.row == 1


class TestConstants:
    def test_a_constant_is_repeated_for_every_row(self) -> None:
        binding = Constant(spec("int64", 2), np.array([5, 6]), per_row=True)
        assert encode(binding, {"a": [1, 2, 3]}, 2).tolist() == [[5, 6]] * 3

    def test_a_constant_for_the_whole_input_is_passed_as_it_is(self) -> None:
        binding = Constant(TensorSpec("x", "int64", ()), np.array(16000), per_row=False)
        tensors = Encoder([binding], 4, {}).load(pa.record_batch({"a": [1, 2]}))
        assert tensors(0, 2)["x"].shape == ()


class TestTextOfHooks:
    @pytest.mark.parametrize(
        "values",
        [["a", b"b"], ["a", None], ["a", 1], np.array([b"a", b"b"]), np.array(["a", float("nan")], object)],
        ids=repr,
    )
    def test_what_is_no_text_is_told(self, values: object) -> None:
        binding = HookFeature("f", (spec("string"),), ("a",), "hooks:encode", ((),))
        with pytest.raises(BadRow, match="text is wanted") as caught:
            encode(binding, {"a": [0, 1, 2]}, 2, f=lambda rows: np.array(values, object)[: rows.num_rows])
        row = 0 if isinstance(values, np.ndarray) and values.dtype.kind == "S" else 1
        assert caught.value.row == row

    @pytest.mark.parametrize("values", [np.array(["a", ""]), np.array(["a", ""], object)], ids=repr)
    def test_text_is_taken(self, values: np.ndarray) -> None:
        binding = HookFeature("f", (spec("string"),), ("a",), "hooks:encode", ((),))
        assert encode(binding, {"a": [1, 2]}, f=lambda _: values).tolist() == ["a", ""]


class TestNumbersOfHooks:
    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([[1.0, 1.0], [1.0, 1e300]], "float32"),
            ([[1, 2], [2**40, 3]], "int32"),
            ([[1, 2], [3, 2**53 + 1]], "float64"),
            ([[1, 2], [-(2**24) - 1, 3]], "float32"),
        ],
    )
    def test_a_number_that_would_be_lost_names_its_row(self, values: list[list[float]], dtype: str) -> None:
        for axis in (0, 1):
            given = np.array(values) if axis == 0 else np.array(values).T
            binding = HookFeature("f", (TensorSpec("x", dtype, (None, None)),), ("a",), "h:e", (None,), axis)
            with pytest.raises(BadRow) as caught:
                encode(binding, {"a": [1, 2]}, f=lambda _, given=given: given)
            assert caught.value.row == 1

    def test_numbers_that_fit_are_cast(self) -> None:
        binding = HookFeature("f", (spec("int32", 2),), ("a",), "h:e", ((2,),))
        found = encode(binding, {"a": [1, 2]}, f=lambda _: [[1, 2], [3, 2**31 - 1]])
        assert (found.dtype, found.tolist()) == ("int32", [[1, 2], [3, 2**31 - 1]])

    def test_rows_of_unequal_length_are_told(self) -> None:
        binding = HookFeature("f", (spec("float32", 2),), ("a",), "h:e", ((2,),))
        with pytest.raises(HookError, match="no tensor") as caught:
            encode(binding, {"a": [1, 2]}, f=lambda _: [[1, 2], [3]])
        assert "inhomogeneous" in caught.value.problems[0].facts["found"]


class TestHooks:
    def binding(self, *inputs: TensorSpec) -> HookFeature:
        shapes = tuple(tuple(d if isinstance(d, int) else None for d in (i.shape or ())[1:]) for i in inputs)
        return HookFeature("f", inputs, ("a",), "hooks:encode", shapes)

    def test_a_hook_is_given_its_columns_batch_by_batch(self) -> None:
        seen: list[tuple[list[str], int]] = []

        def hook(batch: pa.RecordBatch) -> np.ndarray:
            seen.append((batch.schema.names, batch.num_rows))
            return np.asarray(batch["a"], np.float32)

        found = encode(self.binding(spec()), {"a": [1, 2, 3], "b": [0, 0, 0]}, 2, f=hook)
        assert found.tolist() == [1, 2, 3]
        assert seen == [(["a"], 2), (["a"], 1)]

    def test_a_dict_feeds_several_inputs(self) -> None:
        inputs = (spec(), TensorSpec("mask", "int64", ("n",)))
        encoder = Encoder([self.binding(*inputs)], 4, {"f": lambda b: {"x": [1.0], "mask": [2]}})
        tensors = encoder.load(pa.record_batch({"a": [1]}))(0, 1)
        assert {k: v.tolist() for k, v in tensors.items()} == {"x": [1.0], "mask": [2]}

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            (np.zeros((2, 2), np.float32), "wrong shape"),
            (None, "NoneType"),
            (np.zeros(3, np.float32), "wrong shape"),
            (np.zeros(2, complex), "wrong type"),
            ({"y": np.zeros(2)}, "other inputs"),
        ],
    )
    def test_what_it_returns_is_checked(self, result: object, words: str) -> None:
        with pytest.raises(HookError, match=words):
            encode(self.binding(spec()), {"a": [1, 2]}, f=lambda _: result)

    def test_what_it_raises_is_told_with_its_line(self) -> None:
        def hook(_: pa.RecordBatch) -> np.ndarray:
            raise KeyError("weight")

        with pytest.raises(HookError) as caught:
            encode(self.binding(spec()), {"a": [1]}, f=hook)
        assert "test_encode.py" in caught.value.problems[0].facts["at"]
