"""A process beside this one: it ends with this one, and no key of the terminal's ends it before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchonnx.runtime.child import Child

TELLS_ITS_GROUP = """
import os
from batchonnx.runtime.child import parent

parent().send_bytes(str(os.getpgrp()).encode())
"""


def test_ctrl_c_does_not_reach_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tells_its_group.py").write_text(TELLS_ITS_GROUP)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    child = Child("tells_its_group")
    try:
        assert int(child.receive()) != os.getpgrp()
    finally:
        child.end()
