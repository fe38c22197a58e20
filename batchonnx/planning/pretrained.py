"""What a Hugging Face folder says of a job: how rows become inputs, and what outputs mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchonnx.errors import ContractError
from batchonnx.job.spec import Feature, Image, Output
from batchonnx.planning.encoded import encoded_as
from batchonnx.planning.image_preset import FILE_NAME
from batchonnx.planning.match import KEY_NAMES, Match
from batchonnx.planning.texts import TOKENIZER_FILE
from batchonnx.planning.types import is_text
from batchonnx.runtime.signature import TensorSpec

HIDDEN = "last_hidden_state"
CONFIG_FILE = "config.json"
TEXT_NAMES = ("text", "sentence", "content", "body", "document", "passage", "comment", "review", "gloss")
_POOLS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_LABELLED = ("ForSequenceClassification", "ForImageClassification")


@dataclass(frozen=True)
class Known:
    """What is known of a job better than by guessing: an input's feature, or None; the job's outputs."""

    feature: Callable[[TensorSpec, pa.Schema], Match | None]
    outputs: Mapping[str, Output]


def known_of(folder: Path, outputs: Sequence[str], path_of: Callable[[str], str]) -> Known:
    """folder: what was saved beside a model. outputs: the model's. path_of: a file of it, as a job says."""
    has_processor, has_tokenizer = (folder / FILE_NAME).is_file(), (folder / TOKENIZER_FILE).is_file()

    def feature(spec: TensorSpec, schema: pa.Schema) -> Match | None:
        if spec.name == "pixel_values" and has_processor and (column := _image_column(schema)):
            images = Feature(column=column, image=Image(preset=path_of(FILE_NAME)))
            return Match(images, f"encoded images, made ready as {FILE_NAME} says", sure=True)
        if spec.name == "input_ids" and has_tokenizer and (columns := _text_columns(schema)):
            texts = Feature(column=columns[0], tokenizer=path_of(TOKENIZER_FILE))
            sure = len(columns) == 1 or columns[0].lower() in TEXT_NAMES
            return Match(texts, f"texts, made tokens by {TOKENIZER_FILE}", sure)
        return None

    found: dict[str, Output] = {}
    if HIDDEN in outputs and (pool := _pooling(folder)) is not None:
        vector = {"from": HIDDEN, "pool": pool, "normalize": _is_normalized(folder)}
        found["embedding"] = Output.model_validate(vector)
    if "logits" in outputs and _is_labelled(folder):
        best = {"from": "logits", "argmax": True, "labels": path_of(CONFIG_FILE)}
        found["label"] = Output.model_validate(best)
        found["scores"] = Output.model_validate({"from": "logits", "softmax": True})
    return Known(feature, found)


def _text_columns(schema: pa.Schema) -> list[str]:
    """Columns of text that aren't called as a key is; first those that are called as texts are."""
    names = [str(field.name) for field in schema if is_text(field.type)]
    texts = [name for name in names if name.lower() not in KEY_NAMES]
    return sorted(texts, key=lambda name: name.lower() not in TEXT_NAMES)


def _pooling(folder: Path) -> str | None:
    """How sentence-transformers makes one vector of a text's; None where it doesn't say."""
    told = _told(folder / "1_Pooling" / "config.json")
    if not isinstance(told, dict):
        return None
    asked = [name for key, name in _POOLS.items() if told.get(key)]
    return asked[0] if len(asked) == 1 else None


def _is_normalized(folder: Path) -> bool:
    told = _told(folder / "modules.json")
    steps = told if isinstance(told, list) else []
    return any(isinstance(step, dict) and str(step.get("type")).endswith("Normalize") for step in steps)


def _is_labelled(folder: Path) -> bool:
    """Whether its architecture gives one of the labels that its configuration names."""
    told = _told(folder / CONFIG_FILE)
    names = told.get("architectures") if isinstance(told, dict) else None
    return isinstance(names, list) and any(str(name).endswith(_LABELLED) for name in names)


def _told(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # isn't there, or is somebody else's
        return None


def _image_column(schema: pa.Schema) -> str | None:
    """The first column that holds encoded files, rather than their paths."""
    for field in schema:
        try:
            if encoded_as(field.type, field.name, "") != "paths":
                return str(field.name)
        except ContractError:
            continue
    return None
