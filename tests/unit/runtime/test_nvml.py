"""Without NVIDIA's library, or of what it doesn't know, nothing is told, and nothing fails."""

from __future__ import annotations

import pytest

from batchonnx.runtime.nvml import Gauge, Sample


@pytest.mark.parametrize("is_installed", [True, False])
def test_what_isn_t_there_is_not_told_of(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_installed:
        pytest.importorskip("pynvml")
    else:
        monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert Gauge(["ffff:ff:1f.0", None]).look() == [Sample(None, None)] * 2
