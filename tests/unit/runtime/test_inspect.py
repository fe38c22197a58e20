"""The card of a model: figures that can be counted by hand, also where it can't be run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchonnx.errors import ModelFileError
from batchonnx.runtime.inspect import inspect_model
from batchonnx.runtime.session import open_model
from batchonnx.runtime.signature import TensorSpec
from tests import models


def test_a_card_holds_the_signature_and_the_figures(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx", width=10, classes=4)
    model = onnx.load(path)
    model.producer_name, model.producer_version = "trainer", "1.2"
    onnx.save(model, path)
    card = inspect_model(str(path))
    assert card.signature == open_model(str(path)).signature
    assert (card.ir_version, card.opsets, card.producer) == (8, {"": 17}, "trainer 1.2")
    assert (card.operators, card.parameters, card.weights) == ({"Gemm": 1}, 44, {"float": 176})
    assert (card.external, card.problem) == ((), None)


def test_subgraphs_count(tmp_path: Path) -> None:
    branch = [
        helper.make_graph(
            [helper.make_node("Mul", ["x", f"k{i}"], ["y"])],
            f"branch{i}",
            [],
            [models.value("y", "float32", ["n"])],
            [helper.make_tensor(f"k{i}", TensorProto.FLOAT, [], [i])],
        )
        for i in range(2)
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])
    inputs = [models.value("x", "float32", ["n"]), models.value("c", "bool", [])]
    path = models.save(tmp_path / "m.onnx", [node], inputs, [models.value("y", "float32", ["n"])])
    card = inspect_model(str(path))
    assert card.operators == {"Mul": 2, "If": 1}
    assert (card.parameters, card.weights) == (2, {"float": 8})


def test_functions_and_domains_count(tmp_path: Path) -> None:
    body = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    function = helper.make_function("my", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    node = helper.make_node("Twice", ["x"], ["y"], domain="my")
    values = [[models.value(name, "float32", ["n"])] for name in "xy"]
    graph = helper.make_graph([node], "g", values[0], values[1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    card = inspect_model(str(tmp_path / "m.onnx"))
    assert card.operators == {"Neg": 2, "my::Twice": 1}
    assert card.opsets == {"": 17, "my": 1}


def test_weights_are_measured_as_they_are_stored(tmp_path: Path) -> None:
    tensors = [
        numpy_helper.from_array(np.zeros((3, 5), np.float16), "half"),
        numpy_helper.from_array(np.zeros(7, np.int8), "byte"),
        helper.make_tensor("packed", TensorProto.INT4, [5], [1] * 5),
        helper.make_tensor("brain", TensorProto.BFLOAT16, [6], [1.0] * 6),
        numpy_helper.from_array(np.array(["ab", "ä"], object), "text"),
    ]
    path = models.identity(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.initializer.extend(tensors)
    onnx.save(model, path)
    card = inspect_model(str(path))
    assert card.weights == {"float16": 30, "bfloat16": 12, "int8": 7, "string": 4, "int4": 3}
    assert card.parameters == 15 + 7 + 5 + 6 + 2


def test_external_weights_are_counted_and_named(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx", width=10, classes=4)
    inside = inspect_model(str(path))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    card = inspect_model(str(path))
    assert card.external == ("w.data",)
    assert (card.parameters, card.weights) == (inside.parameters, inside.weights)
    assert card.signature.bytes == path.stat().st_size + (tmp_path / "w.data").stat().st_size


def test_a_url_s_card_names_the_url(tmp_path: Path) -> None:
    url = models.linear(tmp_path / "m.onnx").as_uri()
    assert inspect_model(url).signature.path == url


def test_a_model_that_can_t_be_run_here_is_shown_as_declared_with_the_reason(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x", "w"], ["y"], domain="com.acme")
    inputs = [
        models.value("x", "float16", ["n", 3]),
        models.value("w", "float32", [1]),
        models.value("s", "string", None),
    ]
    maps = helper.make_value_info(
        "y",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(
                TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.DOUBLE, [])
            )
        ),
    )
    weights = [numpy_helper.from_array(np.ones(1, np.float32), "w")]
    graph = helper.make_graph([node], "g", inputs, [maps], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {"team": "fraud"})
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    card = inspect_model(str(tmp_path / "m.onnx"))
    assert card.problem is not None
    assert "Frobnicate of the domain com.acme" in card.problem.title
    assert card.signature.inputs == (TensorSpec("x", "float16", ("n", 3)), TensorSpec("s", "string", None))
    assert card.signature.outputs == (TensorSpec("y", "float64", None, "maps", "string"),)
    assert card.signature.metadata == {"team": "fraud"}
    assert card.operators == {"com.acme::Frobnicate": 1}


@pytest.mark.parametrize("opset", [17, 99])
def test_a_card_is_json(tmp_path: Path, opset: int) -> None:
    path = models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    found = json.loads(json.dumps(inspect_model(str(path)).as_dict()))
    assert found["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["n", 3], "kind": "tensor", "key_dtype": None}
    ]
    assert found["opsets"] == {"": opset}
    assert (found["problem"] is None) == (opset == 17)


def test_a_file_that_is_no_model_has_no_card(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04pickled")
    with pytest.raises(ModelFileError, match="a Python pickle"):
        inspect_model(str(tmp_path / "m.onnx"))


def test_onnx_runtime_s_own_format_is_run_but_has_no_card(tmp_path: Path) -> None:
    import onnxruntime

    path = models.linear(tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = np.ones((2, 3), np.float32)
    found = [open_model(str(file)).run(["scores"], {"x": rows})[0] for file in (path, tmp_path / "m.ort")]
    assert np.allclose(found[0], found[1])
    with pytest.raises(ModelFileError, match="ONNX Runtime's own format"):
        inspect_model(str(tmp_path / "m.ort"))
