"""Where there is no GPU that ONNX Runtime can use, each of these tests is skipped, and says why.

BATCHONNX_GPU_TESTS=fake runs them on a device that isn't there (tests/devices.py): whether they work at all.
"""

from __future__ import annotations

import os

import pytest

from batchonnx.errors import BatchonnxError
from batchonnx.runtime.device import Device
from batchonnx.runtime.providers import CUDA
from batchonnx.runtime.require import require_device
from tests.devices import FakeDevice, use_devices

FAKE_MEMORY = 48 << 20


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The first GPU, set as every job's."""
    device = Device(CUDA.name, 0, CUDA.options)
    if os.environ.get("BATCHONNX_GPU_TESTS") == "fake":
        use_devices(monkeypatch, FakeDevice(memory=FAKE_MEMORY))
        return device
    try:
        require_device(device)
    except BatchonnxError as error:
        pytest.skip("; ".join(problem.title for problem in error.problems))
    return device


@pytest.fixture
def is_fake() -> bool:
    """Whether nothing of CUDA's is really there."""
    return os.environ.get("BATCHONNX_GPU_TESTS") == "fake"
