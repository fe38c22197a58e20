"""Where a figure was taken: speed, and what is saved for one kind of CPU, mean nothing elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from batchonnx.runtime.cores import usable_cores


@dataclass(frozen=True)
class Machine:
    """cpu: its model's name. cores: that this process may use. system: kernel and architecture.
    onnxruntime: version."""

    cpu: str
    cores: int
    system: str
    onnxruntime: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    import onnxruntime

    system = f"{platform.system()} {platform.machine()}"
    return Machine(_cpu(), usable_cores(), system, str(onnxruntime.__version__))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
