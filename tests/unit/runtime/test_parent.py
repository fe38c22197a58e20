"""A process that is to end with the one that has started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import os, time
from batchonnx.runtime.parent import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""

PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}])
time.sleep(60)
"""


def test_whoever_is_left_by_its_parent_ends() -> None:
    """Its end of the pipe is closed then."""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdigit()
    assert parent.poll() is None
    parent.kill()
    rest, _ = parent.communicate(timeout=30)
    assert rest == b""
