from __future__ import annotations

import json

import pyarrow as pa
import pytest

from batchonnx.planning.match import Match, match_input
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec


def match(
    spec: TensorSpec, *columns: tuple[str, pa.DataType], metadata: dict[str, str] | None = None
) -> Match | None:
    model = ModelSignature("m.onnx", "0" * 64, 1, (spec,), (), metadata=metadata or {})
    return match_input(spec, model, pa.schema(list(columns)))


def spec(*shape: Dim, name: str = "x", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, ("batch", *shape))


F32, F64, I64 = pa.float32(), pa.float64(), pa.int64()


def test_a_column_of_the_input_s_name_is_taken_before_any_other() -> None:
    found = match(spec(3), ("x", pa.list_(F32, 3)), ("y", pa.list_(F32, 3)))
    assert found is not None
    assert (found.feature.column, found.sure) == ("x", True)


def test_a_column_of_the_input_s_name_but_of_another_shape_is_not() -> None:
    assert match(spec(3), ("x", pa.list_(F32, 4))) is None


def test_exactly_as_many_columns_of_the_model_s_type_are_stacked_in_order() -> None:
    found = match(spec(2), ("id", I64), ("b", F32), ("a", F32), ("c", F64))
    assert found is not None
    assert (found.feature.columns, found.sure) == (["b", "a"], True)


def test_more_columns_than_the_model_wants_are_a_guess() -> None:
    found = match(spec(2), ("a", F32), ("b", F32), ("c", F32))
    assert found is not None
    assert (found.feature.columns, found.sure) == (["a", "b"], False)


def test_the_names_in_the_model_s_metadata_decide_order_and_choice() -> None:
    names = {"feature_names": json.dumps(["c", "a"])}
    found = match(spec(2), ("a", F32), ("b", F32), ("c", F32), metadata=names)
    assert found is not None
    assert (found.feature.columns, found.sure) == (["c", "a"], True)


@pytest.mark.parametrize("text", ["no json", '{"a": 1}', '["a", "missing"]', '["a"]'])
def test_metadata_that_does_not_fit_is_ignored(text: str) -> None:
    found = match(spec(2), ("a", F32), ("b", F32), metadata={"feature_names": text})
    assert found is not None
    assert found.feature.columns == ["a", "b"]


def test_integers_that_could_be_lost_are_asked_for_in_the_feature() -> None:
    found = match(spec(2), ("a", I64), ("b", I64))
    assert found is not None
    assert found.feature.cast


def test_the_only_tensor_column_of_the_right_shape_is_taken() -> None:
    found = match(spec(3, 2), ("id", I64), ("t", pa.fixed_shape_tensor(F32, [3, 2])), ("u", pa.list_(F32, 5)))
    assert found is not None
    assert found.feature.column == "t"


def test_text_feeds_a_string_input() -> None:
    found = match(spec(dtype="string"), ("id", I64), ("t", pa.string()))
    assert found is not None
    assert found.feature.column == "t"


def test_a_binary_column_feeds_a_wide_integer_input_as_a_guess() -> None:
    found = match(spec(2048, dtype="int32"), ("path", pa.string()), ("size", I64), ("bytes", pa.binary()))
    assert found is not None
    assert found.feature.bytes is not None
    assert (found.feature.bytes.head, found.feature.bytes.tail, found.sure) == (1024, 1024, False)


@pytest.mark.parametrize("shape", [(3, 224, 224), (5,), ("seq",)])
def test_nothing_is_matched_where_nothing_fits(shape: tuple[Dim, ...]) -> None:
    assert match(spec(*shape), ("t", pa.string()), ("when", pa.timestamp("us"))) is None
