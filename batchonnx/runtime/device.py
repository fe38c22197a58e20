"""Where a session runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PLUGIN = "plugin:"


@dataclass(frozen=True)
class Device:
    """One device of an execution provider, and how the provider is set.

    provider: by ONNX Runtime's name; `plugin:` and the path of a library that isn't part of ONNX Runtime.
    index: among the provider's devices, as this process sees them. options: of the provider, by ONNX
    Runtime's names. share: of the device's memory, above 0 and at most 1.
    """

    provider: str
    index: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0

    @property
    def is_cpu(self) -> bool:
        """Whether it is ONNX Runtime's own CPU provider."""
        return self.provider == "CPUExecutionProvider"

    @property
    def library(self) -> str | None:
        """Path of a plugin's library; None of a provider that comes with ONNX Runtime."""
        return self.provider.removeprefix(PLUGIN) if self.provider.startswith(PLUGIN) else None


CPU = Device("CPUExecutionProvider")
