"""Which exporter takes what; each is imported only where it is used, since each needs another framework."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.pickles import load_pickle
from batchonnx.lifecycle.export.source import Kind

Exporter = Callable[[Request, Any, Path], Draft]
"""What was asked for; where the source lies on this machine, or what was in it (None: a factory); the file to
write."""

_FILES: dict[Kind, tuple[str, str]] = {
    "factory": ("pytorch", "export_factory"),
    "checkpoint": ("pytorch", "export_checkpoint"),
    "program": ("pytorch", "export_program"),
    "folder": ("hugging_face", "export_pretrained"),
    "hub": ("hugging_face", "export_pretrained"),
    "lightgbm": ("trees", "export_lightgbm_file"),
    "xgboost": ("trees", "export_xgboost_file"),
    "catboost": ("trees", "export_catboost_file"),
}

_OBJECTS = {
    "lightgbm": ("trees", "export_lightgbm"),
    "xgboost": ("trees", "export_xgboost"),
    "catboost": ("trees", "export_catboost"),
}


def exporter_of(kind: Kind) -> Exporter:
    """The exporter of a kind of source."""
    return _export_pickle if kind == "pickle" else _found(*_FILES[kind])


def _export_pickle(request: Request, path: Path, target: Path) -> Draft:
    """Whatever is in it. Raises ExportError unless it is trusted, and of a package that is known."""
    model = load_pickle(path, request.source or str(path), request.trust_pickle)
    package = type(model).__module__.partition(".")[0]
    if package in _OBJECTS:
        return _found(*_OBJECTS[package])(model, request, target)
    if package == "torch" or any(base.__module__.startswith("torch.nn") for base in type(model).__mro__):
        return _found("pytorch", "export_module")(model, request, target)
    if hasattr(model, "n_features_in_"):
        return _found("sklearn_model", "export_sklearn")(model, request, target)
    facts = {
        **request.facts,
        "found": f"{type(model).__module__}.{type(model).__qualname__}",
        "expected": "a fitted estimator of scikit-learn, LightGBM, XGBoost or CatBoost, or a torch.nn.Module",
    }
    raise ExportError(Problem("no exporter takes what is in the pickle", facts, "pickle the model itself"))


def _found(module: str, name: str) -> Exporter:
    exporter: Exporter = getattr(import_module(f"batchonnx.lifecycle.export.{module}"), name)
    return exporter
