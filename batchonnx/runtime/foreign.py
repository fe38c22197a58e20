"""Files that people take for an ONNX model: told by their first bytes, each with what to do."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_TORCH = "torch.onnx.export(model, args, 'model.onnx', dynamo=True)"
_SKLEARN = "skl2onnx.to_onnx(model, rows[:1])"
_KERAS = "model.export('model.onnx', format='onnx')"


def _begins(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


_KINDS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (_begins(b"version https://git-lfs"), "is a Git-LFS pointer, not the file itself", "git lfs pull"),
    (
        lambda head: head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html")),
        "is an HTML page, a download that went wrong",
        "download the file itself, not the page about it; log in where that is needed",
    ),
    (_begins(b"<?xml", b"<"), "is an XML file, not ONNX", "export or download the ONNX model"),
    (
        _begins(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "is a Python pickle, not ONNX",
        f"export it: {_SKLEARN} for scikit-learn, {_TORCH} for PyTorch",
    ),
    (_begins(b"\x89HDF\r\n"), "is an HDF5 file (Keras saves so), not ONNX", f"export it: {_KERAS}"),
    (
        lambda head: head[4:8] == b"TFL3",
        "is a TensorFlow Lite file, not ONNX",
        "convert it: python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
    ),
    (
        lambda head: head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32,
        "is a safetensors file: weights without a graph",
        "export the model that these weights belong to",
    ),
    (_begins(b"GGUF"), "is a GGUF file, for llama.cpp", "export the original model to ONNX"),
    (_begins(b"\x1f\x8b"), "is compressed with gzip", "unpack it: gunzip"),
    (_begins(b"tree\n"), "is a LightGBM text file, not ONNX", "convert it: onnxmltools.convert_lightgbm"),
    (
        lambda head: head[:1] == b"{" and b"learner" in head,
        "is an XGBoost file (JSON or UBJSON), not ONNX",
        "convert it: onnxmltools.convert_xgboost",
    ),
    (_begins(b"CBM1"), "is a CatBoost file, not ONNX", "model.save_model('model.onnx', format='onnx')"),
    (
        lambda head: head.lstrip()[:1] in (b"{", b"["),
        "is a JSON file, not ONNX",
        "export the model to ONNX, in its own library or with onnxmltools",
    ),
)


def foreign_kind(local: Path, head: bytes) -> tuple[str, str] | None:
    """What the file is instead of ONNX ("is a Python pickle, …"), and what to do; None if unknown.

    head: its first bytes, at most 64.
    """
    if not head:
        return "is an empty file", "copy or export it again"
    if head.startswith(b"PK\x03\x04"):
        return _archive(local)
    return next(((what, fix) for is_it, what, fix in _KINDS if is_it(head)), None)


def _archive(local: Path) -> tuple[str, str]:
    names: list[str] = []
    with suppress(zipfile.BadZipFile, OSError):
        names = zipfile.ZipFile(local).namelist()
    inside = next((name for name in names if name.endswith(".onnx")), None)
    if inside is not None:
        return "is a zip archive", f"unpack it and name the model in it: {inside}"
    if any(name.endswith(".weights.h5") for name in names):
        return "is a Keras file (a zip archive), not ONNX", f"export it: {_KERAS}"
    return "is a zip archive (PyTorch saves so), not ONNX", f"export it: {_TORCH}"
