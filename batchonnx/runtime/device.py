"""Where a session runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """One device of an execution provider, and how the provider is set.

    provider: by ONNX Runtime's name. index: among the provider's devices, as this process sees them.
    options: of the provider, by ONNX Runtime's names.
    """

    provider: str
    index: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether it is ONNX Runtime's own CPU provider."""
        return self.provider == "CPUExecutionProvider"


CPU = Device("CPUExecutionProvider")
