"""What validation finds, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "unknown", "warning", "error"]


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    name: "file", "domains", "checker", "shapes", "memory", "session", "rows", "batch", "neighbours",
    "padding", "finite", "repeats". level: "ok"; "note": good to know; "unknown": couldn't be asked;
    "warning": a job may come to harm; "error": no job can use the model. told: one line.
    """

    name: str
    level: Level
    told: str


@dataclass(frozen=True)
class Validation:
    """A model's answers, in the order of the questions; an error ends them.

    model: its path. sha256: None if it couldn't be read.
    """

    model: str
    sha256: str | None
    checks: tuple[Check, ...]

    @property
    def is_valid(self) -> bool:
        """Whether a job can use it: there is no error."""
        return all(check.level != "error" for check in self.checks)

    @property
    def has_warnings(self) -> bool:
        """Whether a job may come to harm by it, or a question couldn't be asked."""
        return any(check.level in ("warning", "unknown") for check in self.checks)

    @property
    def verdict(self) -> Literal["valid", "valid, with warnings", "invalid"]:
        """In a word or three."""
        if not self.is_valid:
            return "invalid"
        return "valid, with warnings" if self.has_warnings else "valid"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/models.md."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Limits:
    """What one question may take.

    timeout_s: until it is answered. memory_bytes: beyond what the process has before; None: four times the
    model's size, and 4 GB.
    """

    timeout_s: float = 120.0
    memory_bytes: int | None = None

    def bytes_for(self, model_bytes: int) -> int:
        """Memory for a model of that size."""
        return self.memory_bytes if self.memory_bytes is not None else 4 * model_bytes + (4 << 30)
