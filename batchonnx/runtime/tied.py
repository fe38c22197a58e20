"""Models that were saved for one kind of CPU: marked in their metadata, and refused on another."""

from __future__ import annotations

from collections.abc import Mapping

from batchonnx.errors import ModelFileError, Problem
from batchonnx.runtime.machine import cpu_kind
from batchonnx.runtime.model_file import ModelFile

TIED = "batchonnx.cpu"
"""In the ONNX metadata: the kind of CPU, as `cpu_kind` tells it."""


def require_kind(file: ModelFile, metadata: Mapping[str, str]) -> None:
    """Raises ModelFileError for a model that was saved for another kind of CPU: it would answer wrongly."""
    wanted, here = metadata.get(TIED), cpu_kind()
    if wanted is not None and wanted != here:
        facts = {**file.facts, "expected": wanted, "found": here}
        fix = "make it again on a machine of this kind, or for all: without --this-cpu, or --graph extended"
        raise ModelFileError(Problem("the model was saved for another kind of CPU", facts, fix))
