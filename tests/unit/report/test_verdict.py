"""What is said of a device that isn't busy: the stage it waits for, and what would help."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from batchonnx.report.verdict import verdict
from batchonnx.scoring.progress import DeviceUse


def gpu(busy: float, *, is_lost: bool = False) -> DeviceUse:
    return DeviceUse("GPU 0: H200", busy, is_lost=is_lost)


@pytest.mark.parametrize(
    ("devices", "busy_s", "told"),
    [
        ([], {"read": 1.0}, None),
        ([gpu(0.93)], {"read": 9.0, "predict": 1.0}, "GPU 93% busy: nothing holds it back"),
        (
            [gpu(0.41)],
            {"read": 9.0, "encode": 2.0, "predict": 4.0},
            "GPU 41% busy: waiting for read; more read-ahead or more cores would help",
        ),
        (
            [gpu(0.2)],
            {"encode": 2.0, "predict": 9.0},
            "GPU 20% busy: waiting for encode; more cores would help",
        ),
        (
            [gpu(0.5), gpu(0.7), gpu(0.1, is_lost=True)],
            {"write": 2.0, "predict": 9.0},
            "2 GPUs 60% busy: waiting for write; a faster place for the output would help, or fewer columns",
        ),
        (
            [gpu(0.5)],
            {"encode": 0.01, "predict": 9.0},
            "GPU 50% busy: calls are too short; more rows in each, or more workers would help",
        ),
        ([gpu(0.0)], {"read": 0.0}, None),
        ([DeviceUse("openvino", 0.95)], {"predict": 1.0}, "device 95% busy: nothing holds it back"),
    ],
)
def test_the_line(devices: list[DeviceUse], busy_s: Mapping[str, float], told: str | None) -> None:
    assert verdict(devices, busy_s) == told
