"""Models in an MLflow registry: `models:/name/version`, `models:/name@alias`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from batchonnx.errors import DependencyError, ModelFileError, Problem
from batchonnx.job.spec.source import REGISTRY


def is_registered(path: str) -> bool:
    """Whether it names a model in a registry."""
    return path.startswith(REGISTRY)


def fetch_registered(path: str) -> Path:
    """The .onnx file of a registered model, its weights beside it, on this machine until exit.

    Which registry: MLflow's own settings say, as MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI do.
    Raises ModelFileError if it can't be had or isn't one ONNX file; DependencyError without MLflow.
    """
    facts = {"model": path}
    try:
        from mlflow.artifacts import download_artifacts
    except ImportError as error:
        fix = "pip install 'batchonnx[mlflow]'"
        raise DependencyError(Problem(f"{REGISTRY} needs MLflow, which isn't here", facts, fix)) from error
    folder = tempfile.mkdtemp(prefix="batchonnx-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        fetched = Path(download_artifacts(artifact_uri=path, dst_path=folder))
    except Exception as error:  # MLflow's own kinds, and those of every store that it knows
        facts["found"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
        fix = "correct name and version, and say which registry: MLFLOW_TRACKING_URI"
        raise ModelFileError(Problem("the registry doesn't give the model", facts, fix)) from error
    models = sorted(fetched.rglob("*.onnx"))
    if len(models) != 1:
        facts["found"] = ", ".join(str(model.relative_to(fetched)) for model in models) or "none"
        fix = "register a model of the onnx flavor, with one .onnx file"
        raise ModelFileError(Problem("the registered model isn't one ONNX file", facts, fix))
    return models[0]
