"""What a tail on the device gives is what the CPU's decode makes of the whole output."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from batchonnx.planning.bindings import OutputBinding, TextColumn
from batchonnx.planning.output_types import column_type
from batchonnx.runtime.device import Device
from batchonnx.runtime.session import Model, open_model
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.decode import Decoder
from batchonnx.scoring.pooling import Pooling
from batchonnx.scoring.reduce import reduce_all
from tests import models
from tests.devices import CUDA, FakeDevice, use_devices

NAMES = ("a", "b", "c", "d", "e")
HOW: list[dict[str, Any]] = [
    {"softmax": True},
    {"sigmoid": True},
    {"normalize": True},
    {"argmax": True},
    {"argmax": True, "labels": NAMES},
    {"softmax": True, "argmax": True},
    {"top_k": 2},
    {"softmax": True, "top_k": 5, "labels": NAMES},
    {"index": 1},
    {"softmax": True, "index": -1},
    {"sigmoid": True, "index": 0, "threshold": 0.5},
    {"softmax": True, "index": 2, "threshold": 0.2, "labels": ("no", "yes")},
    {"precision": "float16"},
    {"normalize": True, "precision": "int8"},
    {"normalize": True, "precision": "binary"},
]
POOLED: list[dict[str, Any]] = [
    {"pool": pool} | how
    for pool in ("mean", "cls", "last")
    for how in ({}, {"normalize": True}, {"normalize": True, "precision": "int8"})
]
VALUES = st.floats(-20, 20, width=16) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0])


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[tuple[str, int], Model]]:
    """(dtype, rank) -> a model on a device that gives back what it is fed, and has a mask."""
    folder = tmp_path_factory.mktemp("echoes")
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, FakeDevice())
        yield {
            (dtype, rank): open_model(
                str(_echo(folder / f"{dtype}{rank}.onnx", dtype, rank)), device=Device(CUDA)
            )
            for dtype in ("float16", "float32", "float64")
            for rank in (2, 3)
        }


def _echo(path: Path, dtype: str, rank: int) -> Path:
    dims = ["n", "t", 5] if rank == 3 else ["n", 5]
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Identity", ["attention_mask"], ["m"]),
    ]
    inputs = [models.value("x", dtype, dims), models.value("attention_mask", "int64", ["n", "t"])]
    outputs = [models.value("y", dtype, dims), models.value("m", "int64", ["n", "t"])]
    return models.save(path, nodes, inputs, outputs)


def bound(dtype: str, rank: int, how: Mapping[str, Any], name: str = "c") -> OutputBinding:
    spec = TensorSpec("y", dtype, ("n", "t", 5) if rank == 3 else ("n", 5))
    binding = OutputBinding(name, spec, None, (5,), **how)
    return dataclasses.replace(binding, type=column_type(binding))


def decoded(
    model: Model, outputs: tuple[OutputBinding, ...], run: Any, feed: dict[str, np.ndarray]
) -> list[pa.Array]:
    decoder = Decoder(outputs, {})
    run = Pooling(outputs, None, run).run if any(b.pool for b in outputs) else run
    values = dict(zip(decoder.model_outputs, run(decoder.model_outputs, feed), strict=True))
    return decoder.decode([values], [len(feed["x"])])


def beside(model: Model, outputs: tuple[OutputBinding, ...], feed: dict[str, np.ndarray]) -> None:
    """Both ways give the same columns."""
    reduced = reduce_all(outputs, model.signature.inputs, None)
    assert reduced.tail is not None
    expected = decoded(model, outputs, model.run, feed)
    found = decoded(model, reduced.outputs, lambda n, t: model.run(n, t, reduced.tail), feed)
    for one, other, binding in zip(expected, found, outputs, strict=True):
        assert one.type == other.type == binding.type
        assert _close(one.to_pylist(), other.to_pylist(), binding), (binding, one, other)


def _close(one: Any, other: Any, binding: OutputBinding) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(_close(a, b, binding) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return all(_close(one[key], other[key], binding) for key in one)
    if isinstance(one, int) and binding.precision == "int8":
        return abs(one - other) <= 1  # a rounding that falls on a half
    if isinstance(one, float):
        return bool(
            np.isclose(one, other, rtol=2e-3 if binding.precision else 1e-5, atol=1e-6, equal_nan=True)
        )
    return bool(one == other)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scores_are_reduced_as_decode_does(echoes: Any, dtype: str, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.just(5)))
    x = data.draw(hnp.arrays(dtype, shape, elements=VALUES))
    hows = data.draw(st.lists(st.sampled_from(HOW), min_size=1, max_size=3))
    outputs = tuple(bound(dtype, 2, how, f"c{number}") for number, how in enumerate(hows))
    if all(binding.precision == "binary" and not binding.normalize for binding in outputs):
        return
    with np.errstate(all="ignore"):
        beside(echoes[dtype, 2], outputs, {"x": x, "attention_mask": np.ones((len(x), 1), np.int64)})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tokens_are_pooled_as_the_cpu_pools_them(echoes: Any, dtype: str, data: st.DataObject) -> None:
    rows, tokens = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    x = data.draw(hnp.arrays(dtype, (rows, tokens, 5), elements=st.floats(-20, 20, width=16)))
    mask = data.draw(hnp.arrays(np.int64, (rows, tokens), elements=st.sampled_from([0, 1])))
    hows = data.draw(st.lists(st.sampled_from(POOLED), min_size=1, max_size=3))
    outputs = tuple(bound(dtype, 3, how, f"c{number}") for number, how in enumerate(hows))
    beside(echoes[dtype, 3], outputs, {"x": x, "attention_mask": mask})


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
@pytest.mark.parametrize("lengths", [(), (4,)])
def test_without_a_mask_padding_is_told_by_its_id(echoes: Any, pool: str, lengths: tuple[int, ...]) -> None:
    ids = TensorSpec("input_ids", "int64", ("n", "t"))
    text = TextColumn((ids,), ("text",), b"", 4, False, "", None, 9, lengths)
    x = np.arange(40, dtype=np.float32).reshape(2, 4, 5)
    fed = {"input_ids": np.array([[1, 2, 9, 9], [9, 3, 4, 5]])}
    binding = bound("float32", 3, {"pool": pool})
    reduced = reduce_all([binding], [ids], text)
    tail = reduced.tail
    assert tail is not None
    assert tail.fed == (("input_ids",) if lengths else ())
    session = onnxruntime.InferenceSession(tail.graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"y": x} | {name: fed[name] for name in tail.fed})
    expected = Pooling([binding], text, lambda names, tensors: [x]).run([binding.value], fed)[0]
    assert np.allclose(found, expected)


def test_fewer_classes_than_are_asked_for_are_all_given() -> None:
    spec = TensorSpec("y", "float32", ("n", None))
    binding = OutputBinding("c", spec, None, (None,), top_k=5)
    binding = dataclasses.replace(binding, type=column_type(binding))
    reduced = reduce_all([binding], [], None)
    assert reduced.tail is not None
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(reduced.tail.graph, providers=["CPUExecutionProvider"])
    values = dict(zip(reduced.tail.outputs, session.run(reduced.tail.outputs, {"y": x}), strict=True))
    (found,) = Decoder(reduced.outputs, {}).decode([values], [4])
    (expected,) = Decoder([binding], {}).decode([{"y": x}], [4])
    assert found.equals(expected)


def test_what_isn_t_about_rows_of_floats_is_left_to_decode() -> None:
    spec = TensorSpec("y", "int64", ("n", 5))
    outputs = [
        OutputBinding("whole", TensorSpec("y", "float32", ("n", 5)), None, (5,)),
        OutputBinding("whole_numbers", spec, None, (5,), argmax=True),
        OutputBinding("hooked", spec, None, None, function="m:f"),
        OutputBinding("mean", TensorSpec("y", "float32", ("n", 5)), None, (5,), index=1, others=(spec,)),
        OutputBinding("turned", TensorSpec("y", "float32", (5, "n")), None, (5,), argmax=True, batch_axis=1),
    ]
    reduced = reduce_all(outputs, [], None)
    assert reduced.tail is None
    assert list(reduced.outputs) == outputs
