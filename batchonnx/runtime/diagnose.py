"""Why a file isn't a model that can be run: found out only after loading has failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from batchonnx.errors import ModelFileError, Problem

_NOT_ONNX: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "the model is a Git-LFS pointer, not the file itself",
        "fetch it: git lfs pull",
    ),
    (
        lambda head: head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")),
        "the model is an HTML page, a download that went wrong",
        "download the file itself",
    ),
    (
        lambda head: head.startswith(b"PK\x03\x04"),
        "the model is a zip archive (PyTorch saves so), not ONNX",
        "export it: torch.onnx.export(model, args, 'model.onnx', dynamo=True)",
    ),
    (
        lambda head: head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")),
        "the model is a Python pickle, not ONNX",
        "export it: skl2onnx for scikit-learn, torch.onnx.export for PyTorch",
    ),
    (
        lambda head: head.startswith(b"\x89HDF\r\n"),
        "the model is an HDF5 file (Keras saves so), not ONNX",
        "export it: model.export('model.onnx', format='onnx')",
    ),
    (
        lambda head: head[4:8] == b"TFL3",
        "the model is a TensorFlow Lite file, not ONNX",
        "convert it: python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
    ),
    (
        lambda head: head[8:10] == b'{"',
        "the model is a safetensors file: weights without a graph",
        "export the model that these weights belong to",
    ),
    (
        lambda head: head.startswith(b"tree\n"),
        "the model is a LightGBM text file, not ONNX",
        "convert it: onnxmltools.convert_lightgbm",
    ),
    (
        lambda head: head.lstrip()[:1] in (b"{", b"["),
        "the model is a JSON file, not ONNX",
        "export it to ONNX first (onnxmltools for XGBoost)",
    ),
)


def diagnose(path: str, local: Path, content: bytes, message: str) -> ModelFileError:
    """Name what is wrong with a model that didn't load.

    path: as the user knows it. local: where its bytes are. message: ONNX Runtime's words.
    """
    facts = {"model": path}
    if not content:
        return ModelFileError(Problem("the model is an empty file", facts, "copy or export it again"))
    for is_it, title, fix in _NOT_ONNX:
        if is_it(content[:64]):
            return ModelFileError(Problem(title, facts, fix))
    facts["found"] = message
    if "Protobuf parsing failed" in message or "No graph was found" in message:
        facts["size"] = f"{len(content):,} bytes"
        fix = "copy or export it again, and compare the sizes"
        return ModelFileError(Problem("the model is truncated, or no ONNX file at all", facts, fix))
    return _external_data(local, content, facts) or _unsupported(message, facts)


def external_files(content: bytes) -> tuple[str, ...]:
    """Names of the files beside the model that hold its weights, sorted; parsed only where there are any."""
    if b"\x0a\x08location\x12" not in content:
        return ()
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return ()
    names = {
        entry.value
        for tensor in _get_all_tensors(model)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(names))


def _external_data(local: Path, content: bytes, facts: dict[str, str]) -> ModelFileError | None:
    names = external_files(content)
    escaping = [n for n in names if Path(n).is_absolute() or ".." in Path(n).parts]
    if escaping:
        fix = "save the model again with its data beside it"
        return ModelFileError(
            Problem(f'the model names weights outside its folder: "{escaping[0]}"', facts, fix)
        )
    missing = [name for name in names if not (local.parent / name).is_file()]
    if missing:
        facts["looked in"] = str(local.parent)
        fix = f"copy {missing[0]} beside the model; it holds the weights"
        return ModelFileError(Problem(f'the model\'s weights are missing: "{missing[0]}"', facts, fix))
    if names and re.search(r"external|out of bounds|offset|file size", facts["found"], re.IGNORECASE):
        sizes = ", ".join(f"{name} {(local.parent / name).stat().st_size:,} bytes" for name in names)
        facts["weights"] = sizes
        fix = "copy the weights again, and compare the sizes"
        return ModelFileError(Problem("the model's weights are cut short or of another model", facts, fix))
    return None


def _unsupported(message: str, facts: dict[str, str]) -> ModelFileError:
    upgrade = "pip install --upgrade onnxruntime, or export for an older opset"
    if match := re.search(r"No Op registered for (\S+) with domain_version of (\d+)", message):
        title = f"ONNX Runtime doesn't know the operator {match[1]} (opset {match[2]})"
        return ModelFileError(Problem(title, facts, upgrade))
    if match := re.search(r"(\S+)\(-?\d+\) is not a registered function/op", message):
        title = f"ONNX Runtime doesn't know the operator {match[1]}"
        return ModelFileError(Problem(title, facts, "export without custom operators"))
    if "opset" in message.lower() or "ir_version" in message.lower() or "IR version" in message:
        return ModelFileError(Problem("the model is too new for this ONNX Runtime", facts, upgrade))
    if "Could not find an implementation" in message or "NOT_IMPLEMENTED" in message:
        fix = "export with other types; float32 works everywhere"
        return ModelFileError(Problem("the CPU has no kernel for an operator of the model", facts, fix))
    return ModelFileError(Problem("ONNX Runtime can't load the model", facts, "check it with onnx.checker"))
