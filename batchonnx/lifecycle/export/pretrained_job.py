"""What a Hugging Face folder says of a job: how rows become inputs, and what outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from batchonnx.errors import ContractError
from batchonnx.job.spec import Feature, Image, Output
from batchonnx.lifecycle.export.draft import JobHints
from batchonnx.planning.encoded import encoded_as
from batchonnx.planning.image_preset import FILE_NAME
from batchonnx.planning.match import Match
from batchonnx.runtime.signature import TensorSpec

LABELLED = ("text-classification", "image-classification")


def job_of(folder: Path, outputs: Sequence[str], task: str) -> JobHints:
    """folder: of the model, with what was saved beside it; the job's own, too."""
    has_processor = (folder / FILE_NAME).is_file()

    def matcher(spec: TensorSpec, schema: pa.Schema) -> Match | None:
        if spec.name == "pixel_values" and has_processor and (column := _image_column(schema)):
            feature = Feature(column=column, image=Image(preset=FILE_NAME))
            return Match(feature, f"encoded images, made ready as {FILE_NAME} says", sure=True)
        return None

    found: dict[str, Output] = {}
    if task in LABELLED and "logits" in outputs:
        found["label"] = Output.model_validate({"from": "logits", "argmax": True, "labels": "config.json"})
        found["scores"] = Output.model_validate({"from": "logits", "softmax": True})
    return JobHints(matcher, found)


def _image_column(schema: pa.Schema) -> str | None:
    """The first column that holds encoded files, rather than their paths."""
    for field in schema:
        try:
            if encoded_as(field.type, field.name, "") != "paths":
                return str(field.name)
        except ContractError:
            continue
    return None
