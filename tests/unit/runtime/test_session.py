"""Sessions: one for many threads, quiet, cancelled from outside, errors in plain words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.session import Cancelled, Model, PredictError, open_model
from tests import models
from tests.devices import CUDA, FakeDevice, use_devices

NUMBERS = ["float16", "float32", "float64", "bool"] + [
    f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)
]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("identities")
    return {
        dtype: open_model(str(models.identity(folder / f"{dtype}.onnx", dtype, ["n", "k"])))
        for dtype in [*NUMBERS, "string"]
    }


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_values_of_every_type_pass_unchanged(identities: dict[str, Model], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(NUMBERS))
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(1, 4)))
    values = data.draw(hnp.arrays(dtype, shape))
    (found,) = identities[dtype].run(["y"], {"x": values})
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
@settings(max_examples=50, deadline=None)
def test_text_passes_unchanged(identities: dict[str, Model], words: list[str]) -> None:
    values = np.array(words, object).reshape(-1, 1)
    (found,) = identities["string"].run(["y"], {"x": values})
    assert found.ravel().tolist() == words


def test_only_the_outputs_asked_for_come_in_the_order_asked(tmp_path: Path) -> None:
    nodes = [helper.make_node(op, ["x"], [op.lower()]) for op in ("Relu", "Neg", "Abs")]
    outputs = [models.value(name, "float32", ["n"]) for name in ("relu", "neg", "abs")]
    path = models.save(tmp_path / "m.onnx", nodes, [models.value("x", "float32", ["n"])], outputs)
    found = open_model(str(path)).run(["abs", "neg"], {"x": np.array([-1, 2], np.float32)})
    assert [values.tolist() for values in found] == [[1, 2], [1, -2]]


def test_arrays_are_fresh_for_every_call(tmp_path: Path) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    first = model.run(["scores"], {"x": np.ones((2, 3), np.float32)})[0]
    kept = first.copy()
    model.run(["scores"], {"x": np.zeros((2, 3), np.float32)})
    assert np.array_equal(first, kept)


def test_eight_threads_share_one_session_bit_for_bit(tmp_path: Path) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((i % 7 + 1, 3)).astype(np.float32) for i in range(200)]
    alone = [model.run(["scores"], {"x": batch})[0].tobytes() for batch in batches]

    def score_all(_: int) -> list[bytes]:
        return [model.run(["scores"], {"x": batch})[0].tobytes() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == alone for found in pool.map(score_all, range(8)))


@pytest.mark.parametrize("threads", [2, 4])
def test_more_threads_in_a_call_give_the_same_bits(tmp_path: Path, threads: int) -> None:
    path = str(models.linear(tmp_path / "m.onnx", width=64, classes=33))
    rows = np.random.default_rng(1).standard_normal((1000, 64)).astype(np.float32)
    one = open_model(path, threads=1).run(["scores"], {"x": rows})[0]
    many = open_model(path, threads=threads).run(["scores"], {"x": rows})[0]
    assert one.tobytes() == many.tobytes()


@pytest.mark.parametrize("threads", [2, 3])
def test_more_threads_add_up_trees_in_the_same_order(tmp_path: Path, threads: int) -> None:
    path = str(models.trees(tmp_path / "m.onnx"))
    rows = np.random.default_rng(1).standard_normal((1000, 3)).astype(np.float32)
    one = open_model(path, threads=1).run(["total"], {"x": rows})[0]
    many = open_model(path, threads=threads)
    assert one.tobytes() == many.run(["total"], {"x": rows})[0].tobytes()
    assert (one.std() > 0, many.threads) == (True, 1)


WRONG_FEEDS = {
    "invalid dimensions": {"x": np.zeros((2, 4), np.float32)},
    "Invalid rank": {"x": np.zeros(3, np.float32)},
    r"tensor\(double\)": {"x": np.zeros((2, 3))},
    "missing": {},
    "Invalid input name: z": {"x": np.zeros((2, 3), np.float32), "z": np.zeros(1, np.float32)},
}


@pytest.mark.parametrize("words", WRONG_FEEDS)
def test_a_call_that_is_wrong_fails_in_onnx_runtime_s_words(tmp_path: Path, words: str) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    with pytest.raises(PredictError, match=words) as caught:
        model.run(["scores"], WRONG_FEEDS[words])
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "\n" not in str(caught.value)


def out_of_range(folder: Path) -> Model:
    gather = helper.make_node("Gather", ["w", "x"], ["y"])
    inputs, outputs = [models.value("x", "int64", ["n"])], [models.value("y", "float32", ["n"])]
    weights = {"w": np.arange(4, dtype=np.float32)}
    return open_model(str(models.save(folder / "m.onnx", [gather], inputs, outputs, weights)))


def test_a_model_that_fails_on_a_batch_scores_the_next_one(tmp_path: Path) -> None:
    model = out_of_range(tmp_path)
    with pytest.raises(PredictError, match="idx=7 must be within the inclusive range"):
        model.run(["y"], {"x": np.array([1, 7])})
    assert model.run(["y"], {"x": np.array([1, 3])})[0].tolist() == [1, 3]


def test_memory_that_cannot_be_had_is_an_error_of_the_call(tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["x"], ["y"])
    path = models.save(
        tmp_path / "m.onnx",
        [node],
        [models.value("x", "int64", [1])],
        [models.value("y", "float32", ["n"])],
    )
    model = open_model(str(path))
    with pytest.raises(PredictError, match="Failed to allocate memory"):
        model.run(["y"], {"x": np.array([2**45])})
    assert model.run(["y"], {"x": np.array([2])})[0].tolist() == [0, 0]


def test_onnx_runtime_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither its errors, which come as exceptions, nor a warning for each batch of another shape."""
    with pytest.raises(PredictError):
        out_of_range(tmp_path).run(["y"], {"x": np.array([7])})
    declared = models.value("y", "float32", [1, 3])
    relu = helper.make_node("Relu", ["x"], ["r"])
    flat = helper.make_node("Reshape", ["r", "to"], ["y"])
    inputs = [models.value("x", "float32", ["n", 3]), models.value("to", "int64", [2])]
    path = models.save(tmp_path / "w.onnx", [relu, flat], inputs, [declared])
    feed = {"x": np.ones((4, 3), np.float32), "to": np.array([4, 3])}
    assert open_model(str(path)).run(["y"], feed)[0].shape == (4, 3)
    assert capfd.readouterr() == ("", "")


def endless(path: Path) -> Path:
    """A loop of 10**9 small matrix products."""
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
    square = [64, 64]
    inputs, outputs = [models.value("x", "float32", square)], [models.value("y", "float32", square)]
    return models.save(path, [loop], inputs, outputs, weights)


@pytest.mark.parametrize("device", [CPU, Device(CUDA)], ids=["cpu", "device"])
def test_calls_in_flight_are_ended_by_cancel_and_later_ones_not_begun(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    use_devices(monkeypatch, FakeDevice())
    model = open_model(str(endless(tmp_path / "m.onnx")), device=device)
    feed = {"x": np.ones((64, 64), np.float32)}
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(model.run, ["y"], feed) for _ in range(5)]  # more than a device has lanes
        model.cancel()
        for call in running:
            with pytest.raises(Cancelled):
                call.result(timeout=60)
    with pytest.raises(Cancelled):
        model.run(["y"], feed)
    assert capfd.readouterr() == ("", "")
