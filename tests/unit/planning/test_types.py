from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.planning.types import cast_price, column_shape, row_bytes

INTEGERS = [getattr(pa, f"{u}int{w}")() for u in ("", "u") for w in (8, 16, 32, 64)]
DTYPES = [f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)] + ["float16", "float32", "float64"]


@pytest.mark.parametrize(
    ("arrow_type", "value", "shape"),
    [
        (pa.float32(), pa.float32(), ()),
        (pa.list_(pa.float32(), 4), pa.float32(), (4,)),
        (pa.list_(pa.int8()), pa.int8(), (None,)),
        (pa.large_list(pa.list_(pa.float64(), 3)), pa.float64(), (None, 3)),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), ()),
        (pa.fixed_shape_tensor(pa.float32(), [2, 3]), pa.float32(), (2, 3)),
        (pa.fixed_shape_tensor(pa.float32(), [2, 3, 5], permutation=[2, 0, 1]), pa.float32(), (5, 2, 3)),
    ],
)
def test_a_column_s_shape_is_what_one_row_holds(
    arrow_type: pa.DataType, value: pa.DataType, shape: tuple[int | None, ...]
) -> None:
    found = column_shape(arrow_type)
    assert (found.value, found.shape) == (value, shape)


@given(st.sampled_from(INTEGERS), st.sampled_from(DTYPES), st.data())
def test_a_free_cast_of_an_integer_loses_no_value(
    arrow_type: pa.DataType, dtype: str, data: st.DataObject
) -> None:
    limits = np.iinfo(str(arrow_type))
    value = data.draw(st.integers(int(limits.min), int(limits.max)))
    if cast_price(arrow_type, dtype) == "free":
        assert int(np.array([value], str(arrow_type)).astype(dtype)[0]) == value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arrow_type", INTEGERS, ids=str)
def test_a_cast_of_integers_that_is_said_to_lose_has_a_value_that_it_loses(
    arrow_type: pa.DataType, dtype: str
) -> None:
    limits = np.iinfo(str(arrow_type))
    digits = {"float16": 11, "float32": 24, "float64": 53}.get(dtype, 0)
    witnesses = [int(limits.min), int(limits.max), *([2**digits + 1] if digits else [])]
    kept = [_survives(w, dtype) for w in witnesses if limits.min <= w <= limits.max]
    assert all(kept) == (cast_price(arrow_type, dtype) == "free")


def _survives(value: int, dtype: str) -> bool:
    if not dtype.startswith("float"):
        return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
    with np.errstate(over="ignore"):
        there = float(np.array([value], np.object_).astype(dtype)[0])
    return np.isfinite(there) and int(there) == value


@pytest.mark.parametrize(
    ("arrow_type", "dtype", "price"),
    [
        (pa.float64(), "float32", "narrows"),
        (pa.float32(), "float64", "free"),
        (pa.float32(), "int64", "loses"),
        (pa.bool_(), "float32", "free"),
        (pa.int8(), "bool", "impossible"),
        (pa.decimal128(10, 2), "float32", "narrows"),
        (pa.decimal128(10, 2), "int64", "loses"),
        (pa.string(), "string", "free"),
        (pa.large_string(), "string", "free"),
        (pa.string_view(), "string", "free"),
        (pa.string(), "float32", "impossible"),
        (pa.int64(), "string", "impossible"),
        (pa.timestamp("us"), "int64", "impossible"),
        (pa.float32(), "bfloat16", "impossible"),
    ],
)
def test_what_each_cast_costs(arrow_type: pa.DataType, dtype: str, price: str) -> None:
    assert cast_price(arrow_type, dtype) == price


def test_row_bytes_counts_only_the_columns_asked_for() -> None:
    schema = pa.schema([("a", pa.float32()), ("b", pa.list_(pa.float64(), 10)), ("c", pa.string())])
    assert row_bytes(schema, ["a"], 1000) == 4
    assert row_bytes(schema, ["a", "b"], 1000) == 84


def test_row_bytes_of_a_text_column_is_the_table_s_own() -> None:
    assert row_bytes(pa.schema([("c", pa.string())]), ["c"], 1000) == 1000
