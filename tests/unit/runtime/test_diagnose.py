"""Files that are no model, and models that can't be run here: each is called by its name."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchonnx.errors import ModelFileError, Problem
from batchonnx.runtime.diagnose import clean
from batchonnx.runtime.session import open_model
from tests import models


def problem(path: Path) -> Problem:
    with pytest.raises(ModelFileError) as caught:
        open_model(str(path))
    assert len(caught.value.problems) == 1
    found = caught.value.problems[0]
    assert found.facts["model"] == str(path)
    assert found.fix
    return found


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def scikit_learn() -> bytes:
    from sklearn.linear_model import LinearRegression

    return pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))


def lightgbm() -> bytes:
    import lightgbm

    rows = np.random.default_rng(0).standard_normal((60, 2))
    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, rows[:, 0]), num_boost_round=1)
    return booster.model_to_string().encode()


FOREIGN: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "nothing": (lambda: b"", "an empty file", "again"),
    "Git LFS": (
        lambda: f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4' * 64}\nsize 13".encode(),
        "a Git-LFS pointer",
        "git lfs pull",
    ),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page", "download"),
    "HTML, blanks first": (lambda: b"\n\n  <html lang='en'>", "an HTML page", "download"),
    "XML of S3": (
        lambda: b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
        "an XML",
        "download",
    ),
    "PyTorch": (lambda: zipped("model/data.pkl", "model/data/0"), "PyTorch", "torch.onnx.export"),
    "Keras 3": (lambda: zipped("config.json", "model.weights.h5"), "Keras", "model.export"),
    "a zipped model": (lambda: zipped("readme.md", "net/model.onnx"), "zip archive", "net/model.onnx"),
    "a zip cut short": (lambda: zipped("model/data.pkl")[:40], "zip archive", "export"),
    "gzip": (lambda: gzip.compress(b"model"), "gzip", "gunzip"),
    "scikit-learn": (scikit_learn, "a Python pickle", "skl2onnx"),
    "an old pickle": (lambda: pickle.dumps({"a": 1}, protocol=2), "a Python pickle", "torch.onnx.export"),
    "Keras 2": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(88), "an HDF5 file", "model.export"),
    "TensorFlow Lite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(24), "a TensorFlow Lite", "tf2onnx"),
    "safetensors": (safetensors, "a safetensors file", "export the model"),
    "GGUF": (lambda: b"GGUF\x03\x00\x00\x00" + bytes(24), "a GGUF file", "export"),
    "LightGBM": (lightgbm, "a LightGBM text file", "convert_lightgbm"),
    "XGBoost": (lambda: b'{"learner":{"attributes":{}}}', "an XGBoost file", "convert_xgboost"),
    "XGBoost, binary": (
        lambda: b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{",
        "an XGBoost",
        "convert_xgboost",
    ),
    "CatBoost": (lambda: b"CBM1" + bytes(40), "a CatBoost file", "save_model"),
    "JSON": (lambda: b'{"weights": []}', "a JSON file", "export"),
    "prose": (lambda: b"This model is awaiting review.\n", "no ONNX file at all", "copy or export"),
    "noise": (lambda: np.random.default_rng(0).bytes(1000), "no ONNX file at all", "copy or export"),
    "another protobuf": (
        lambda: numpy_helper.from_array(np.ones(9, np.float32), "w").SerializeToString(),
        "no ONNX file at all",
        "copy or export",
    ),
    "a model without a graph": (
        lambda: onnx.ModelProto(ir_version=8, producer_name="someone").SerializeToString(),
        "truncated",
        "copy or export",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, kind: str) -> None:
    content, title, fix = FOREIGN[kind]
    (tmp_path / "model.onnx").write_bytes(content())
    found = problem(tmp_path / "model.onnx")
    assert title in found.title
    assert fix in found.fix
    assert found.facts["size"].endswith("bytes")


@pytest.mark.parametrize("kept", [2, 10, 100, 1000, -1])
def test_a_model_that_is_cut_anywhere_is_truncated(tmp_path: Path, kept: int) -> None:
    path = models.linear(tmp_path / "model.onnx", width=200)
    content = path.read_bytes()[:kept]
    path.write_bytes(content)
    found = problem(path)
    assert "truncated" in found.title
    assert found.facts["size"] == f"{len(content):,} bytes"


Value = onnx.ValueInfoProto


def graph(
    path: Path,
    node: onnx.NodeProto,
    opsets: dict[str, int] | None = None,
    inputs: Sequence[Value] = (models.value("x", "float32", ["n", 3]),),
    outputs: Sequence[Value] = (models.value("y", "float32", ["n", 3]),),
    ir_version: int = 8,
) -> Path:
    made = helper.make_graph([node], "g", list(inputs), list(outputs))
    imports = [helper.make_opsetid(domain, number) for domain, number in (opsets or {"": 17}).items()]
    path.write_bytes(
        helper.make_model(made, opset_imports=imports, ir_version=ir_version).SerializeToString()
    )
    return path


def op(name: str, domain: str = "", inputs: Sequence[str] = ("x",), label: str = "") -> onnx.NodeProto:
    return helper.make_node(name, list(inputs), ["y"], domain=domain, name=label)


def test_an_unknown_operator_is_named_with_its_opset(tmp_path: Path) -> None:
    found = problem(graph(tmp_path / "m.onnx", op("Frobnicate")))
    assert found.title == "ONNX Runtime doesn't know the operator Frobnicate in opset 17"


def test_an_operator_of_a_later_opset_says_which(tmp_path: Path) -> None:
    found = problem(graph(tmp_path / "m.onnx", op("Gelu")))
    assert "Gelu in opset 17" in found.title
    assert found.facts["found"] == "Gelu came with opset 20"
    assert found.fix == "export for opset 20 or newer"


@pytest.mark.parametrize(("domain", "fix"), [("com.acme", "custom"), ("com.microsoft", "--upgrade")])
def test_an_operator_of_another_domain_is_named_with_it(tmp_path: Path, domain: str, fix: str) -> None:
    found = problem(graph(tmp_path / "m.onnx", op("Frobnicate", domain), {"": 17, domain: 1}))
    assert found.title == f"ONNX Runtime doesn't know the operator Frobnicate of the domain {domain}"
    assert fix in found.fix


def test_a_domain_without_an_opset_is_named(tmp_path: Path) -> None:
    assert "com.acme" in problem(graph(tmp_path / "m.onnx", op("Frobnicate", "com.acme"))).title


@pytest.mark.parametrize(("domain", "of"), [("", ""), ("ai.onnx.ml", " of ai.onnx.ml")])
def test_an_opset_that_is_too_new_is_told_beside_the_newest_one_known(
    tmp_path: Path, domain: str, of: str
) -> None:
    found = problem(graph(tmp_path / "m.onnx", op("Identity"), {"": 17} | {domain: 99}))
    assert "too new" in found.title
    assert found.facts["found"] == f"opset 99{of}"
    newest = int(found.facts["expected"].split()[1])
    assert 0 < newest < 99


def test_an_ir_version_that_is_too_new_is_told_beside_the_newest_one_known(tmp_path: Path) -> None:
    found = problem(graph(tmp_path / "m.onnx", op("Identity"), ir_version=99))
    assert "too new" in found.title
    assert found.facts["found"] == "IR version 99"
    assert found.facts["expected"].startswith("IR version 1")


def test_a_type_without_a_kernel_is_named_with_operator_and_node(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [3, 3]) for name in "xy")
    node = op("MatMul", inputs=("x", "x"), label="encoder/layer.0")
    found = problem(graph(tmp_path / "m.onnx", node, inputs=[x], outputs=[y]))
    assert found.title == 'the CPU has no kernel for MatMul of bfloat16 (opset 13) at node "encoder/layer.0"'


@pytest.mark.parametrize(
    ("node", "dtype"),
    [(op("Sin"), "int64"), (op("Add", inputs=("x", "nowhere")), "float32")],
    ids=["a type that the operator forbids", "a value that nothing makes"],
)
def test_a_graph_that_contradicts_itself_is_told_in_onnx_runtime_s_words(
    tmp_path: Path, node: onnx.NodeProto, dtype: str
) -> None:
    values = [[models.value(name, dtype, ["n"])] for name in "xy"]
    found = problem(graph(tmp_path / "m.onnx", node, inputs=values[0], outputs=values[1]))
    assert "contradicts itself" in found.title
    assert "Load model from" not in found.facts["found"]


@pytest.mark.parametrize("folder", ["opset 17", "external offset", "No Op registered for X"])
def test_words_in_the_path_are_no_symptoms(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    node = op("Add", inputs=("x", "nowhere"))
    assert "contradicts itself" in problem(graph(tmp_path / folder / "m.onnx", node)).title


def test_the_reason_is_not_written_to_the_terminal_as_well(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = helper.make_model(helper.make_graph([], "g", [], []), ir_version=8)
    (tmp_path / "m.onnx").write_bytes(empty.SerializeToString())
    problem(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank\n for x", "Invalid rank for x"),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Load model from /a b/m.onnx failed:/onnxruntime_src/onnxruntime/"
            "core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const int&) Too new\n",
            "Too new",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/"
            "onnxruntime/core/a.cc:51 f(const std::x&) "
            "[ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:2201 Get Short",
            "Short",
        ),
        ("plain words", "plain words"),
    ],
)
def test_a_message_keeps_what_a_user_can_use(message: str, cleaned: str) -> None:
    assert clean(message) == cleaned
