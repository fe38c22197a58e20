"""Sessions, signatures, digests, wheels and the core budget."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from batchonnx.errors import DependencyError, ModelFileError
from batchonnx.runtime import wheels
from batchonnx.runtime.cores import cores_from, divide_cores, usable_cores
from batchonnx.runtime.inspect import inspect_model
from batchonnx.runtime.session import Cancelled, PredictError, open_model
from batchonnx.runtime.signature import TensorSpec
from tests import models


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", ["n", 3]),
        ("float64", [None, 3, "w"]),
        ("float16", [8]),
        ("string", ["n"]),
        ("bool", ["n", 1]),
        ("uint8", []),
    ],
)
def test_inputs_and_outputs_are_read_as_declared(
    tmp_path: Path, dtype: str, shape: list[int | str | None]
) -> None:
    signature = open_model(str(models.identity(tmp_path / "m.onnx", dtype, shape))).signature
    assert signature.inputs == (TensorSpec("x", dtype, tuple(shape)),)
    assert [spec.dtype for spec in signature.outputs] == [dtype]


def test_a_classifier_s_maps_are_told_from_tensors(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    model = to_onnx(LogisticRegression().fit(rows, rows[:, 0] > 0), rows[:1])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    outputs = open_model(str(tmp_path / "m.onnx")).signature.outputs
    assert [spec.kind for spec in outputs] == ["tensor", "maps"]


def test_the_digest_is_the_file_s_own_where_all_is_in_one_file(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    assert open_model(str(path)).signature.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_external_weights_are_another_digest(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    before = open_model(str(path)).signature
    data = bytearray((tmp_path / "w.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.data").write_bytes(data)
    after = open_model(str(path)).signature
    assert before.digest != after.digest
    assert before.bytes == path.stat().st_size + len(data)
    assert inspect_model(str(path)).external == ("w.data",)


def test_one_session_serves_many_threads(tmp_path: Path) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    batches = [
        np.random.default_rng(i).standard_normal((i % 7 + 1, 3)).astype(np.float32) for i in range(400)
    ]
    alone = [model.run(["scores"], {"x": batch})[0] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: model.run(["scores"], {"x": batch})[0], batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_run_that_fails_says_why_without_a_class_of_onnx_runtime(tmp_path: Path) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    with pytest.raises(PredictError, match="invalid dimensions"):
        model.run(["scores"], {"x": np.zeros((2, 4), np.float32)})


def test_a_call_in_flight_is_ended_by_cancel(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("MatMul", ["m", "m"], ["p"]),
            helper.make_node("Tanh", ["p"], ["t"]),
        ],
        "body",
        [
            models.value("i", "int64", []),
            models.value("go", "bool", []),
            models.value("m", "float32", [64, 64]),
        ],
        [models.value("on", "bool", []), models.value("t", "float32", [64, 64])],
    )
    weights = {"times": np.array(10**9, np.int64), "true": np.array(True)}
    loop = helper.make_node("Loop", ["times", "true", "x"], ["y"], body=body)
    path = models.save(
        tmp_path / "m.onnx",
        [loop],
        [models.value("x", "float32", [64, 64])],
        [models.value("y", "float32", [64, 64])],
        weights,
    )
    model = open_model(str(path))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(model.run, ["y"], {"x": np.ones((64, 64), np.float32)})
        model.cancel()
        with pytest.raises(Cancelled):
            running.result(timeout=60)


def test_a_card_counts_nodes_and_weights_inside_subgraphs_too(tmp_path: Path) -> None:
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
    assert (card.parameters, card.weights, card.opsets) == (2, {"float": 8}, {"": 17})
    assert card.as_dict()["inputs"][0]["name"] == "x"


NOT_ONNX = {
    "a zip archive": b"PK\x03\x04rest",
    "a Python pickle": b"\x80\x04\x95rest",
    "an HDF5 file": b"\x89HDF\r\n\x1a\nrest",
    "a TensorFlow Lite": b"\x1c\x00\x00\x00TFL3rest",
    "a safetensors": (40).to_bytes(8, "little") + b'{"w": {}}',
    "a LightGBM text": b"tree\nversion=v4\n",
    "a JSON file": b'{"learner": {}}',
    "an empty file": b"",
}


@pytest.mark.parametrize("what", NOT_ONNX)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, what: str) -> None:
    (tmp_path / "model.onnx").write_bytes(NOT_ONNX[what])
    with pytest.raises(ModelFileError, match=what) as caught:
        open_model(str(tmp_path / "model.onnx"))
    assert caught.value.problems[0].fix


def test_weights_that_are_cut_short_are_told(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx", width=200)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").write_bytes(b"\x00" * 10)
    with pytest.raises(ModelFileError, match="cut short") as caught:
        open_model(str(path))
    assert "w.data 10 bytes" in caught.value.problems[0].facts["weights"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "isn't installed"),
        ({"onnxruntime": "1.32", "onnxruntime-gpu": "1.31"}, "overwrite each other"),
    ],
)
def test_neither_wheel_or_both_are_answered_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(wheels, "installed_wheels", lambda: found)
    with pytest.raises(DependencyError, match=words) as caught:
        wheels.require_onnxruntime()
    assert "pip install" in caught.value.problems[0].fix


@pytest.mark.parametrize(
    ("affinity", "quotas", "cores"),
    [(8, [], 8), (8, [2.0], 2), (8, [2.5, 4.0], 2), (2, [16.0], 2), (4, [0.5], 1)],
)
def test_the_smallest_limit_counts(affinity: int, quotas: list[float], cores: int) -> None:
    assert cores_from(affinity, quotas) == cores


def test_this_machine_has_a_core() -> None:
    assert usable_cores() >= 1


@given(st.integers(1, 256), st.none() | st.integers(1, 300), st.integers(0, 1000))
def test_workers_and_threads_stay_within_the_cores_unless_more_workers_are_asked_for(
    cores: int, workers: int | None, shards: int
) -> None:
    budget = divide_cores(cores, workers, shards)
    assert budget.workers >= 1
    assert budget.threads_per_worker >= 1
    if workers is None:
        assert budget.workers <= max(1, shards)
    if workers is None or workers <= cores:
        assert budget.workers * budget.threads_per_worker <= cores
