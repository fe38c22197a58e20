"""What NVIDIA's management library tells of GPUs while they work; nothing where it isn't installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """A moment of a GPU. utilisation: share of the last moments in which it worked. memory: bytes in use."""

    utilisation: float | None
    memory: int | None


class Gauge:
    """Looks at GPUs, if the package nvidia-ml-py is there (the extra `gpu` has it).

    buses: see `cuda.Gpu`; None: nothing that NVML could tell of.
    """

    def __init__(self, buses: Sequence[str | None]) -> None:
        self._handles = [_handle(bus) if bus else None for bus in buses]

    def look(self) -> list[Sample]:
        """Of each GPU, now; some 0.1 ms."""
        return [_sample(handle) for handle in self._handles]


def _handle(bus: str) -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByPciBusId(bus.encode())
    except pynvml.NVMLError:
        return None


def _sample(handle: Any) -> Sample:
    if handle is None:
        return Sample(None, None)
    import pynvml

    def asked(look: Any) -> Any:
        try:
            return look(handle)
        except pynvml.NVMLError:  # a slice of a GPU (MIG) isn't told of, or the GPU is gone
            return None

    rates, memory = asked(pynvml.nvmlDeviceGetUtilizationRates), asked(pynvml.nvmlDeviceGetMemoryInfo)
    return Sample(
        rates.gpu / 100 if rates is not None else None, int(memory.used) if memory is not None else None
    )
