"""The end of every step that makes a model: it is as good as asked for and says so, or it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from batchonnx.lifecycle.compare import Comparison, Subject, require_good
from batchonnx.lifecycle.comparison_report import keep_report
from batchonnx.lifecycle.provenance import Step, record_step
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.signature import ModelSignature


def bless(comparison: Comparison, path: Path, source: ModelSignature | None, step: Step) -> Comparison:
    """Record in and beside a model how it was made, with the comparison's verdict; keep the report.

    path: the model that was compared as b. source: what it was made of, if that is a model. step: its
    verdict is filled in here. Gives the comparison with the model's digest as it is now.
    Raises GateError if a gate was missed: the report is kept, the model is left as it was, unblessed.
    """
    if comparison.passed:
        record_step(path, source, replace(step, verdict=comparison.verdict))
        file = find_model(str(path))
        comparison = replace(comparison, b=Subject(comparison.b.path, file.digest, file.bytes))
    keep_report(comparison, path)
    require_good(comparison)
    return comparison
