"""Batches on a device: in flight beside each other, from buffers that are used again."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.lanes import IN_FLIGHT, Lanes
from batchonnx.runtime.machine import resident_bytes
from batchonnx.runtime.session import DeviceLost, Model, OutOfMemory, PredictError, open_model
from tests import models
from tests.devices import CUDA, FakeDevice, use_devices


@pytest.fixture
def linear(tmp_path: Path) -> Model:
    return open_model(str(models.linear(tmp_path / "m.onnx")))


def lanes_of(model: Model) -> Lanes:
    """The real bindings, on the CPU."""
    return Lanes(model.session, model.signature, CPU)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


@settings(max_examples=30)
@given(counts=st.lists(st.integers(0, 3000), min_size=1, max_size=12))
def test_batches_of_any_shapes_give_what_a_plain_call_gives(
    counts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = open_model(str(models.linear(tmp_path_factory.mktemp("m") / "m.onnx")))
    lanes = lanes_of(model)
    given_back = []
    for count in counts:
        x = rows(count, count)
        given_back.append((lanes.run(["scores"], {"x": x}, None)[0], model.run(["scores"], {"x": x})[0]))
        x[:] = 7  # the caller's buffer is used again at once
    assert all(np.array_equal(bound, plain) for bound, plain in given_back)


def test_what_a_call_gave_outlives_its_lane_and_its_session(tmp_path: Path) -> None:
    model = open_model(str(models.linear(tmp_path / "m.onnx")))
    lanes, x = lanes_of(model), rows(2000)
    expected = model.run(["scores"], {"x": x})[0]
    found = [lanes.run(["scores"], {"x": x + place}, None)[0] for place in (0, 1)]
    del lanes, model
    gc.collect()
    np.full((4000, 2), 3.0, np.float32)
    assert np.array_equal(found[0], expected)


def test_many_threads_share_the_lanes_and_none_sees_another_s_rows(linear: Model) -> None:
    lanes = lanes_of(linear)

    def score(seed: int) -> bool:
        x = rows(1 + seed * 37 % 900, seed)
        return np.array_equal(lanes.run(["scores"], {"x": x}, None)[0], linear.run(["scores"], {"x": x})[0])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(score, range(400)))


def test_ten_thousand_batches_of_changing_shapes_leave_no_memory_behind(linear: Model) -> None:
    lanes, x = lanes_of(linear), rows(2048)

    def score(times: int) -> None:
        for number in range(times):
            lanes.run(["scores"], {"x": x[: 1 + number * 331 % 2048]}, None)

    score(1000)
    before = resident_bytes()
    score(10_000)
    assert resident_bytes() - before < 8 << 20


def test_so_many_calls_are_in_flight_as_there_are_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    use_devices(monkeypatch, device)
    model = open_model(str(models.linear(tmp_path / "m.onnx")), device=Device(CUDA))
    together = threading.Barrier(IN_FLIGHT)
    monkeypatch.setattr("tests.devices.time.sleep", lambda s: together.wait(20))
    with ThreadPoolExecutor(2 * IN_FLIGHT) as pool:
        calls = [pool.submit(model.run, ["scores"], {"x": rows(4)}) for _ in range(2 * IN_FLIGHT)]
        assert all(call.result()[0].shape == (4, 2) for call in calls)
    assert device.most == IN_FLIGHT * rows(4).nbytes
    assert model.lanes is not None
    assert model.lanes.busy_s > 0


@pytest.mark.parametrize(
    "dtype", ["bool", "float16", "float32", "float64", "uint8", "int16", "uint32", "int64"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_values_of_every_type_and_rank_pass_unchanged(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    dims = [f"d{axis}" for axis in range(len(shape))]
    model = open_model(str(models.identity(tmp_path / "m.onnx", dtype, dims)))
    values = np.asarray(np.random.default_rng(0).integers(0, 200, shape)).astype(dtype)
    (found,) = lanes_of(model).run(["y"], {"x": values}, None)
    assert (found.dtype, found.shape) == (values.dtype, shape)
    assert np.array_equal(found, values)


def test_text_and_maps_go_without_a_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_devices(monkeypatch, FakeDevice())
    path = models.identity(tmp_path / "m.onnx", "string", ["n"])
    model = open_model(str(path), device=Device(CUDA))
    assert model.run(["y"], {"x": np.array(["a", "b"], object)})[0].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Failed to allocate memory for requested buffer of size 4096", OutOfMemory),
        ("Available memory of 0 is smaller than requested bytes of 4096", OutOfMemory),
        (
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);",
            OutOfMemory,
        ),
        ("CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0", OutOfMemory),
        ("CUBLAS failure 3: the resource allocation failed ; GPU=0", OutOfMemory),
        ("CUDA failure 214: uncorrectable ECC error encountered ; GPU=1", DeviceLost),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=1", DeviceLost),
        ("CUDA failure 999: unknown error ; GPU=0", DeviceLost),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus", DeviceLost),
        ("CUDA failure 701: too many resources requested for launch ; GPU=0", PredictError),
        ("Got invalid dimensions for input: x", PredictError),
    ],
)
def test_what_a_device_says_tells_whether_memory_or_the_device_or_a_row_is_the_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception]
) -> None:
    use_devices(monkeypatch, FakeDevice(lost_at=1))
    monkeypatch.setattr("tests.devices.LOST", text)
    model = open_model(str(models.linear(tmp_path / "m.onnx")), device=Device(CUDA))
    with pytest.raises(kind) as raised:
        model.run(["scores"], {"x": rows(1)})
    assert type(raised.value) is kind
    assert text[:20] in str(raised.value)


RUNTIME = """
#include <stddef.h>
int locked = 0;
int fails = 0;
int cudaHostRegister(void *at, size_t size, unsigned flags) { if (fails) return 1; locked++; return 0; }
int cudaHostUnregister(void *at) { locked--; return 0; }
"""
LOCKED = """
import ctypes, gc, sys
import numpy as np
from batchonnx.runtime.pinned import Staging
runtime = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
locked, fails = (ctypes.c_int.in_dll(runtime, name) for name in ("locked", "fails"))
staging, x = Staging(is_locked=True), np.arange(10_000)
assert np.array_equal(staging.put("x", x), x) and locked.value == 1
assert np.array_equal(staging.put("x", x[:5]), x[:5]) and locked.value == 1  # the same buffer
assert np.array_equal(staging.put("x", np.tile(x, 9)), np.tile(x, 9)) and locked.value == 1  # a larger one
staging.put("y", x)
assert locked.value == 2
fails.value = 1
assert np.array_equal(staging.put("z", x), x) and locked.value == 2  # what can't be locked is only slower
assert Staging(is_locked=False).put("x", x) is not None and locked.value == 2
del staging
gc.collect()
assert locked.value == 0
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc to make a CUDA runtime with")
def test_buffers_are_locked_once_and_unlocked_when_they_go(tmp_path: Path) -> None:
    (tmp_path / "runtime.c").write_text(RUNTIME)
    library = tmp_path / "libcudart.so.13"
    made = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcudart.so.13", "-o", str(library)]
    subprocess.run([*made, str(tmp_path / "runtime.c")], check=True)
    done = subprocess.run(
        [sys.executable, "-c", LOCKED, str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
