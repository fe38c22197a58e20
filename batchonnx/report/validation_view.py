"""A model's validation in words."""

from __future__ import annotations

from batchonnx.lifecycle.validate import Validation
from batchonnx.report.text import printable


def format_validation(found: Validation) -> str:
    """The verdict, and a line for each question with its answer."""
    head = f"{found.model}: {found.verdict}"
    lines = [f"  {check.level:<8} {check.name:<10} {check.told}" for check in found.checks]
    return "\n".join(printable(line) for line in (head, *lines))
