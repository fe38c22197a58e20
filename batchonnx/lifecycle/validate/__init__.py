"""Whether a model can be trusted with a job: each question asked in a process that may die of it."""

from batchonnx.lifecycle.validate.ask import validate
from batchonnx.lifecycle.validate.verdict import Check, Limits, Validation

__all__ = ["Check", "Limits", "Validation", "validate"]
