"""The devices that a run's workers feed: which are lost, and how busy each has been."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from batchonnx.errors import DeviceError, Problem
from batchonnx.runtime.cuda import Gpu
from batchonnx.runtime.near import stay_near
from batchonnx.runtime.nvml import Gauge
from batchonnx.runtime.providers import words_for
from batchonnx.runtime.session import DeviceLost, Model
from batchonnx.scoring.progress import DeviceUse


class Devices:
    """Models, each on a device of its own.

    gpus: what NVIDIA's driver says of each; None of other devices. lost: device -> what was said when it was.
    """

    def __init__(self, models: Sequence[Model], gpus: Sequence[Gpu | None]) -> None:
        self.models, self.gpus = list(models), list(gpus)
        self.lost: dict[int, str] = {}
        self._gauge = Gauge([gpu.bus if gpu is not None else None for gpu in gpus])
        self._begun = perf_counter()
        self._ended: float | None = None
        self._seen: list[list[float]] = [[] for _ in models]
        self._memory: list[int | None] = [None for _ in models]

    @property
    def left(self) -> list[int]:
        """Those that work."""
        return [number for number in range(len(self.models)) if number not in self.lost]

    def name(self, number: int) -> str:
        """As the user is told of it."""
        gpu = self.gpus[number]
        device = self.models[number].device
        return f"GPU {device.index}: {gpu.name}" if gpu is not None else words_for(device)

    def lose(self, number: int, error: DeviceLost) -> None:
        """It is of no use any more; only what was said first is kept."""
        self.lost.setdefault(number, error.found)

    def stay_near(self, number: int) -> None:
        """Keep the calling worker to cores near its device."""
        gpu = self.gpus[number]
        if gpu is not None and gpu.bus:
            stay_near(gpu.bus)

    def require_one(self) -> None:
        """Raises DeviceError if none is left."""
        if not self.left:
            facts = {self.name(number): said for number, said in self.lost.items()}
            fix = "see dmesg and nvidia-smi; the same command goes on where this run stopped"
            raise DeviceError(Problem("no device is left that works", facts, fix))

    def begin(self) -> None:
        """Scoring begins: what is told of use is told from here on."""
        self._begun = perf_counter()

    def end(self) -> None:
        """Scoring has ended."""
        self._ended = perf_counter()

    def look(self) -> None:
        """Take note of how they are now; called every now and then."""
        for number, sample in enumerate(self._gauge.look()):
            if sample.utilisation is not None:
                self._seen[number].append(sample.utilisation)
            self._memory[number] = max(
                filter(None, (self._memory[number], sample.memory)), default=sample.memory
            )

    def use(self) -> tuple[DeviceUse, ...]:
        """While rows were scored; nothing on the CPU."""
        elapsed = max((self._ended or perf_counter()) - self._begun, 1e-9)
        return tuple(
            DeviceUse(
                self.name(number),
                min(1.0, model.lanes.busy_s / elapsed),
                sum(self._seen[number]) / len(self._seen[number]) if self._seen[number] else None,
                self._memory[number],
                gpu.total_bytes if gpu is not None else None,
                number in self.lost,
            )
            for number, (model, gpu) in enumerate(zip(self.models, self.gpus, strict=True))
            if model.lanes is not None
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Which were lost."""
        return tuple(
            f"{self.name(number)} was lost, and its shards given to the others: {said}"
            for number, said in self.lost.items()
        )
