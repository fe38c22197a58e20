"""What a process knows of its own memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ASK = "from batchonnx.runtime.machine import peak_bytes; print(peak_bytes())"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system tells less")
def test_a_process_s_peak_is_its_own_and_not_its_starter_s() -> None:
    held = np.ones(400 << 20, np.uint8)
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < held.nbytes
