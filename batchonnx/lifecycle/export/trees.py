"""Boosted trees: LightGBM, XGBoost, CatBoost, from their own files or as objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.packages import need
from batchonnx.lifecycle.export.tabular import (
    MAX_DIFF,
    label_and_scores,
    one_matrix,
    refused,
    save,
)
from batchonnx.lifecycle.export.tree_rows import rows_between

_CONVERTER = "'batchonnx[sklearn]'"
_OPSET = 15
"""The newest that onnxmltools knows."""


def export_lightgbm_file(request: Request, path: Path, target: Path) -> Draft:
    """LightGBM's text format. Raises ExportError, DependencyError."""
    lightgbm = need("lightgbm", "lightgbm")
    try:
        booster = lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise _unreadable("LightGBM", error, request) from error
    return export_lightgbm(booster, request, target)


def export_xgboost_file(request: Request, path: Path, target: Path) -> Draft:
    """XGBoost's JSON and UBJSON. Raises ExportError, DependencyError."""
    xgboost = need("xgboost", "xgboost")
    try:
        booster = xgboost.Booster(model_file=str(path))
    except xgboost.core.XGBoostError as error:
        raise _unreadable("XGBoost", error, request) from error
    return export_xgboost(booster, request, target)


def export_catboost_file(request: Request, path: Path, target: Path) -> Draft:
    """CatBoost's own binary format. Raises ExportError, DependencyError."""
    catboost = need("catboost", "catboost")
    try:
        model = catboost.CatBoost().load_model(str(path))
    except catboost.CatBoostError as error:
        raise _unreadable("CatBoost", error, request) from error
    return export_catboost(model, request, target)


def export_lightgbm(model: Any, request: Request, target: Path) -> Draft:
    """model: a Booster, or an estimator of LightGBM's. Raises ExportError, DependencyError."""
    tools = need("onnxmltools", _CONVERTER)
    is_estimator = hasattr(model, "booster_")
    booster = model.booster_ if is_estimator else model
    spec = one_matrix(request, booster.num_feature())
    try:
        made = tools.convert_lightgbm(
            model,
            initial_types=_types(spec.name, booster.num_feature()),
            target_opset=request.opset or _OPSET,
            zipmap=False,
        )
    except Exception as error:  # the converter's own kinds are many
        raise refused(error, request) from error
    outputs = [value.name for value in made.graph.output]
    classes = getattr(model, "classes_", None) if is_estimator else None

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = np.asarray(booster.predict(tensors[spec.name], num_threads=1))
        if len(outputs) == 1:
            return [found.reshape(len(found), -1)]
        return label_and_scores(found, outputs, classes)

    names = booster.feature_name()
    is_named = any(not name.startswith("Column_") for name in names)
    return _finish(made, spec.name, answer, names if is_named else [], ("lightgbm",), request, target)


def export_xgboost(model: Any, request: Request, target: Path) -> Draft:
    """model: a Booster, or an estimator of XGBoost's. Raises ExportError, DependencyError."""
    tools = need("onnxmltools", _CONVERTER)
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    width, names = booster.num_features(), booster.feature_names or []
    spec = one_matrix(request, width)
    plain = booster.copy()
    # The converter takes no names but f0, f1, …: ours are in the metadata.
    plain.feature_names = plain.feature_types = None
    plain.set_param({"nthread": 1})
    try:
        made = tools.convert_xgboost(
            plain, initial_types=_types(spec.name, width), target_opset=request.opset or _OPSET
        )
    except Exception as error:  # the converter's own kinds are many
        raise refused(error, request) from error
    outputs = [value.name for value in made.graph.output]

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = np.asarray(plain.inplace_predict(tensors[spec.name]))
        if len(outputs) == 1:
            return [found.reshape(len(found), -1)]
        return label_and_scores(found, outputs)

    return _finish(made, spec.name, answer, names, ("xgboost", "xgboost-cpu"), request, target)


def export_catboost(model: Any, request: Request, target: Path) -> Draft:
    """model: any of CatBoost's. Raises ExportError: of models with categories, for one."""
    catboost = need("catboost", "catboost")
    names = list(model.feature_names_)
    width = len(names)
    scratch = target.with_suffix(".catboost")
    try:
        model.save_model(str(scratch), format="onnx", export_parameters={"onnx_graph_name": "catboost"})
        made = onnx.load(scratch)
    except catboost.CatBoostError as error:
        raise refused(error, request) from error
    finally:
        scratch.unlink(missing_ok=True)
    _without_maps(made)
    (only,) = made.graph.input
    spec = one_matrix(request, width)
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = spec.name if name == only.name else name
    only.name = spec.name
    is_classifier = len(made.graph.output) == 2
    if not is_classifier:
        # Declared as [rows], and given as [rows, 1].
        (values,) = made.graph.output
        values.CopyFrom(onnx.helper.make_tensor_value_info(values.name, onnx.TensorProto.FLOAT, [None, 1]))

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        rows = tensors[spec.name]
        if not is_classifier:
            return [np.asarray(model.predict(rows, thread_count=1)).reshape(len(rows), -1)]
        scores = np.asarray(model.predict(rows, prediction_type="Probability", thread_count=1))
        labels = np.asarray(model.predict(rows, prediction_type="Class", thread_count=1)).reshape(-1)
        return [labels, scores]

    is_named = names != [str(number) for number in range(width)]
    return _finish(made, spec.name, answer, names if is_named else [], ("catboost",), request, target)


def _finish(
    made: onnx.ModelProto,
    name: str,
    answer: Any,
    names: list[str],
    packages: tuple[str, ...],
    request: Request,
    target: Path,
) -> Draft:
    width = made.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    rows = rows_between(made, name, width)
    save(made, target, names, request)
    return Draft(answer, (*packages, "onnxmltools", "onnx"), MAX_DIFF, rows=rows)


def _without_maps(model: onnx.ModelProto) -> None:
    """Probabilities as the matrix that they are: CatBoost ends a classifier with a ZipMap."""
    for node in model.graph.node:
        if node.op_type != "ZipMap":
            continue
        for value in model.graph.output:
            if value.name == node.output[0]:
                value.CopyFrom(
                    onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, [None, None])
                )
        model.graph.node.remove(node)
        return


def _types(name: str, width: int) -> list[tuple[str, Any]]:
    kinds = need("onnxmltools.convert.common.data_types", _CONVERTER)
    return [(name, kinds.FloatTensorType([None, width]))]


def _unreadable(library: str, error: Exception, request: Request) -> ExportError:
    facts = {**request.facts, "found": str(error).strip().splitlines()[0]}
    return ExportError(Problem(f"{library} can't read the model", facts, "save it again"))
