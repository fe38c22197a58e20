"""Hugging Face models, by optimum: the model, and beside it what turns texts or images into its inputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.packages import need
from batchonnx.lifecycle.export.torch_exporters import one_thread
from batchonnx.lifecycle.feed import GivenRows
from batchonnx.lifecycle.quiet import quiet

MAX_DIFF = 1e-4
"""Sums of 32 bits in another order; a network adds up many."""

TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForImageClassification": "image-classification",
}
"""End of an architecture's name -> what it is for; others give their hidden states."""

SYNONYMS = {
    "sequence-classification": "text-classification",
    "zero-shot-classification": "text-classification",
}

_INSTALL = "'batchonnx[hf]'"
_KEPT = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
"""What sentence-transformers writes of pooling and of the longest text, and nothing saves again."""

_SAMPLES = (
    "a",
    "One prediction for every row.",
    "The quick brown fox jumps over the lazy dog, again and again, until it is dark.",
    "42 % of 1,024 users in Zürich said: “no”!",
)
_IMAGES = 8


def export_pretrained(request: Request, path: Path, target: Path) -> Draft:
    """A folder that `save_pretrained` wrote, or a hub's id. No code of theirs is run.

    Raises ExportError for what can't be loaded or exported, DependencyError.
    """
    torch = need("torch", _INSTALL)
    exporters = need("optimum.exporters.onnx", _INSTALL)
    name = str(path) if path.is_dir() else str(request.source)
    with quiet():
        task = _task(name, request)
        model = _loaded(name, task, request)
        model.eval()
        try:
            exporters.onnx_export_from_model(
                model, target.parent, task=task, opset=request.opset, device="cpu", do_validation=False
            )
        except Exception as error:  # of many kinds: whatever the architecture does that can't be followed
            facts = {**request.facts, "task": task, "found": _first_line(error)}
            fix = "name another task that the model is for: --task"
            raise ExportError(Problem("optimum can't export the model", facts, fix)) from error
        _one_model(target, request)
        tokenizer, processor = _save_preprocessors(name, path, target.parent)
    spec = onnx.load(target, load_external_data=False).graph
    inputs, outputs = [value.name for value in spec.input], [value.name for value in spec.output]

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        given = {name: torch.from_numpy(value) for name, value in tensors.items()}
        with one_thread(), torch.no_grad():
            found = model(**given)
        return [found[name].numpy() for name in outputs]

    tensors = _sample(inputs, tokenizer, processor, model.config)
    return Draft(
        answer,
        ("optimum-onnx", "optimum", "transformers", "torch", "onnx"),
        MAX_DIFF,
        {"task": task},
        rows=GivenRows(tensors, "a few texts" if tokenizer is not None else "random images")
        if tensors
        else None,
    )


def _task(name: str, request: Request) -> str:
    """As asked for, else as the architecture's name ends."""
    if request.task is not None:
        return SYNONYMS.get(request.task, request.task)
    transformers = need("transformers", _INSTALL)
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=Path(name).is_dir())
    except Exception as error:  # of many kinds, by what is missing
        raise _unloadable(error, request) from error
    architecture = next(iter(config.architectures or []), "")
    return next((task for end, task in TASKS.items() if architecture.endswith(end)), "feature-extraction")


def _loaded(name: str, task: str, request: Request) -> Any:
    tasks = need("optimum.exporters.tasks", _INSTALL).TasksManager
    try:
        kind = tasks.get_model_class_for_task(task, framework="pt", library="transformers")
    except KeyError as error:
        known = (*dict.fromkeys(["feature-extraction", *TASKS.values(), *SYNONYMS]),)
        facts = {**request.facts, "found": task, "expected": ", ".join(known)}
        raise ExportError(
            Problem("there is no such task", facts, "name one of those expected: --task")
        ) from error
    try:
        return kind.from_pretrained(name, local_files_only=Path(name).is_dir())
    except Exception as error:  # of many kinds, by what is missing
        raise _unloadable(error, request) from error


def _one_model(target: Path, request: Request) -> None:
    """Under the name that was asked for. Raises ExportError where the task makes several models."""
    made = sorted(target.parent.glob("*.onnx"))
    if len(made) != 1:
        facts = {**request.facts, "found": ", ".join(path.name for path in made)}
        fix = "a job scores rows with one model: choose a task that needs one, such as feature-extraction"
        raise ExportError(Problem("the task makes more than one model", facts, fix))
    (only,) = made
    if only != target:
        model = onnx.load(only)
        only.unlink()
        for weights in target.parent.glob(f"{only.name}?data"):
            weights.unlink()
        is_large = model.ByteSize() > 1_800_000_000
        onnx.save(model, target, save_as_external_data=is_large, location=f"{target.name}.data")


def _save_preprocessors(name: str, path: Path, folder: Path) -> tuple[Any, Any]:
    """Tokenizer and image processor beside the model, those that there are."""
    transformers = need("transformers", _INSTALL)
    found: list[Any] = []
    for kind in ("AutoTokenizer", "AutoImageProcessor"):
        try:
            one = getattr(transformers, kind).from_pretrained(name, local_files_only=Path(name).is_dir())
            one.save_pretrained(folder)
        except Exception:  # of many kinds: the model has none
            one = None
        found.append(one)
    for kept in _KEPT:
        if (path / kept).is_file():
            (folder / kept).parent.mkdir(exist_ok=True)
            shutil.copyfile(path / kept, folder / kept)
    return found[0], found[1]


def _sample(inputs: Sequence[str], tokenizer: Any, processor: Any, config: Any) -> dict[str, np.ndarray]:
    """Rows that mean something to the model: padded texts, or images of its size; else empty."""
    found: dict[str, np.ndarray] = {}
    if tokenizer is not None and "input_ids" in inputs:
        tokens = tokenizer(list(_SAMPLES), padding=True, return_tensors="np")
        found |= {name: np.asarray(value, np.int64) for name, value in tokens.items() if name in inputs}
    if "pixel_values" in inputs:
        size = _size(processor, config)
        channels = getattr(config, "num_channels", 3)
        pixels = np.random.default_rng(0).standard_normal((_IMAGES, channels, *size))
        found["pixel_values"] = pixels.astype(np.float32)
    return found if found.keys() >= set(inputs) else {}


def _size(processor: Any, config: Any) -> tuple[int, int]:
    """Height and width of an image as the model gets it."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    told: Any = crop or getattr(processor, "size", None) or getattr(config, "image_size", 224)
    if isinstance(told, Mapping):
        side = told.get("shortest_edge", 224)
        return int(told.get("height", side)), int(told.get("width", side))
    height, width = (told, told) if isinstance(told, int) else tuple(told)
    return int(height), int(width)


def _unloadable(error: Exception, request: Request) -> ExportError:
    facts = {**request.facts, "found": _first_line(error)}
    fix = "name a folder with config.json and weights, or the id of a model on a hub that can be reached"
    return ExportError(Problem("the model can't be loaded", facts, fix))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
