"""What a model takes and gives, read from real models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batchonnx.runtime.session import open_model
from batchonnx.runtime.signature import Dim, ModelSignature, TensorSpec
from tests import models


def signature(path: Path) -> ModelSignature:
    return open_model(str(path)).signature


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", ("n", 3)),
        ("float64", (None, 3, "w")),
        ("float16", (8,)),
        ("string", ("n",)),
        ("bool", ("n", 1)),
        ("int8", (1, 3, 224, 224)),
        ("uint8", ()),
        ("int64", None),
    ],
)
def test_inputs_and_outputs_are_read_as_declared(
    tmp_path: Path, dtype: str, shape: tuple[Dim, ...] | None
) -> None:
    found = signature(models.identity(tmp_path / "m.onnx", dtype, shape))  # type: ignore[arg-type]
    assert found.inputs == (TensorSpec("x", dtype, shape),)
    assert found.outputs == (TensorSpec("y", dtype, shape),)


def test_an_output_without_a_declared_shape_has_the_inferred_one(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    path = models.save(
        tmp_path / "m.onnx",
        [relu],
        [models.value("x", "float32", ["n", 3])],
        [models.value("y", "float32", None)],
    )
    assert signature(path).outputs == (TensorSpec("y", "float32", ("n", 3)),)


def test_an_output_whose_rank_depends_on_data_is_no_scalar(tmp_path: Path) -> None:
    reshape = helper.make_node("Reshape", ["x", "to"], ["y"])
    inputs = [models.value("x", "float32", ["n", 4]), models.value("to", "int64", ["rank"])]
    path = models.save(tmp_path / "m.onnx", [reshape], inputs, [models.value("y", "float32", None)])
    assert signature(path).outputs == (TensorSpec("y", "float32", None),)


def test_a_negative_dimension_is_an_unknown_one(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", shape=[-1, 3])
    assert signature(path).inputs == (TensorSpec("x", "float32", (None, 3)),)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_an_initializer_that_is_listed_as_input_is_none(tmp_path: Path, ir_version: int) -> None:
    path = models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = ir_version
    model.graph.input.append(models.value("w", "float32", [3, 2]))
    model.graph.input.append(models.value("b", "float32", [2]))
    onnx.save(model, path)
    assert [spec.name for spec in signature(path).inputs] == ["x"]


@pytest.mark.parametrize(("labels", "key"), [((0, 1), "int64"), (("no", "yes"), "string")])
def test_a_classifier_s_maps_are_told_from_tensors(
    tmp_path: Path, labels: tuple[object, object], key: str
) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    model = to_onnx(LogisticRegression().fit(rows, np.array(labels)[(rows[:, 0] > 0).astype(int)]), rows[:1])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    label, probabilities = signature(tmp_path / "m.onnx").outputs
    assert (label.kind, label.dtype) == ("tensor", key)
    assert probabilities == TensorSpec("output_probability", "float32", None, "maps", key)


def test_a_sequence_of_tensors_is_named_as_onnx_runtime_does(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x", "x"], ["y"])
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    path = models.save(tmp_path / "m.onnx", [node], [models.value("x", "float32", ["n"])], [output])
    assert signature(path).outputs == (TensorSpec("y", "seq(tensor(float))", None, "other"),)


def test_producer_and_metadata_are_those_of_the_file(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.producer_name = "trainer"
    helper.set_model_props(model, {"classes": "cat,dog", "größe": "ß"})
    onnx.save(model, path)
    found = signature(path)
    assert (found.producer, found.metadata) == ("trainer", {"classes": "cat,dog", "größe": "ß"})


def test_a_small_model_is_opened_without_the_onnx_package(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    code = (
        "import sys; from batchonnx.runtime.session import open_model; "
        "open_model(sys.argv[1]); print('onnx' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (TensorSpec("x", "float32", ("batch", 28)), "x float32[batch, 28]"),
        (TensorSpec("x", "float32", (None, 28)), "x float32[?, 28]"),
        (TensorSpec("x", "int64", ()), "x int64[]"),
        (TensorSpec("x", "int64", None), "x int64[...]"),
        (TensorSpec("p", "float32", None, "maps", "string"), "p maps<string, float32>"),
    ],
)
def test_a_spec_shows_as_errors_and_plans_name_it(spec: TensorSpec, text: str) -> None:
    assert str(spec) == text
