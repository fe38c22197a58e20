"""Where a figure was taken: speed, and what is saved for one kind of CPU, mean nothing elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from batchonnx.runtime.cores import usable_cores
from batchonnx.runtime.machine import cpu_name


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
    return Machine(cpu_name(), usable_cores(), system, str(onnxruntime.__version__))
