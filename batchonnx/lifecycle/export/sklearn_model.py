"""Estimators and pipelines of scikit-learn, with LightGBM's and XGBoost's in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.packages import need
from batchonnx.lifecycle.export.tabular import MAX_DIFF, ML_OPSET, OPSET, one_matrix, refused, save
from batchonnx.lifecycle.export.tree_rows import rows_between
from batchonnx.runtime.signature import TensorSpec

_CONVERTER = "'batchonnx[sklearn]'"


def export_sklearn(model: Any, request: Request, target: Path) -> Draft:
    """model: fitted. Columns that it selects by name become inputs of their own, else there is one matrix.

    Raises ExportError, DependencyError.
    """
    skl2onnx = need("skl2onnx", _CONVERTER)
    packages = ("scikit-learn", *_register_boosters(model))
    named = dict(_named_columns(model))
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if named:
        inputs = list(request.inputs) or [
            TensorSpec(name, named.get(name, "float32"), (None, 1)) for name in names
        ]
    else:
        inputs = [one_matrix(request, int(model.n_features_in_))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = skl2onnx.to_onnx(
                model,
                initial_types=[(spec.name, _type(spec)) for spec in inputs],
                options=_as_matrix(model),
                target_opset={"": request.opset or OPSET, "ai.onnx.ml": ML_OPSET},
            )
    except Exception as error:  # the converters' own kinds are many
        raise refused(error, request) from error
    outputs = [value.name for value in made.graph.output]

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        rows = _frame(tensors, names) if named else tensors[inputs[0].name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a matrix has no names of columns
            return list(_answers(model, rows, outputs))

    rows = None if named else rows_between(made, inputs[0].name, int(model.n_features_in_))
    save(made, target, [] if named else names, request)
    return Draft(answer, (*packages, "skl2onnx", "onnx"), MAX_DIFF, rows=rows)


def _answers(model: Any, rows: Any, outputs: Sequence[str]) -> Iterator[np.ndarray]:
    """What the converters call outputs, by scikit-learn's own methods."""
    for name in outputs:
        if "label" in name:
            yield np.asarray(model.predict(rows))
        elif "prob" in name:
            gives = getattr(model, "predict_proba", None) or model.decision_function
            yield np.asarray(gives(rows))
        elif name == "scores":
            gives = getattr(model, "decision_function", None) or model.transform
            yield _matrix(gives(rows))
        else:
            gives = getattr(model, "predict", None) or model.transform
            yield _matrix(gives(rows))


def _matrix(found: Any) -> np.ndarray:
    dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
    return np.asarray(dense.reshape(len(dense), -1))


def _steps(model: Any) -> Iterator[Any]:
    """The model and all that it is made of."""
    yield model
    for _, step in getattr(model, "steps", None) or []:
        yield from _steps(step)
    for _, transformer, _ in getattr(model, "transformers_", None) or []:
        yield from _steps(transformer)
    for inner in getattr(model, "estimators_", None) or []:
        if hasattr(inner, "steps"):
            yield from _steps(inner)


def _named_columns(model: Any) -> Iterator[tuple[str, str]]:
    """Column that is selected by name -> type: text or integers where an encoder has learned such."""
    for step in _steps(model):
        for _, transformer, columns in getattr(step, "transformers_", None) or []:
            asked = [columns] if isinstance(columns, str) else list(columns)
            if not all(isinstance(column, str) for column in asked):
                continue
            kinds: list[str] = ["float32"] * len(asked)
            for inner in _steps(transformer):
                if learned := getattr(inner, "categories_", None):
                    kinds = [_kind(values) for values in learned]
            yield from zip(asked, kinds, strict=False)


def _kind(values: Any) -> str:
    return {"O": "string", "U": "string", "T": "string", "i": "int64"}.get(
        np.asarray(values).dtype.kind, "float32"
    )


def _as_matrix(model: Any) -> dict[int, dict[str, Any]]:
    """No list of dicts: probabilities as one matrix. Only classifiers know the option."""
    sklearn = need("sklearn.base", _CONVERTER)
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    return {id(model): {"zipmap": False}} if sklearn.is_classifier(last) else {}


def _type(spec: TensorSpec) -> Any:
    kinds = need("skl2onnx.common.data_types", _CONVERTER)
    known = {
        "string": kinds.StringTensorType,
        "int64": kinds.Int64TensorType,
        "float64": kinds.DoubleTensorType,
        "bool": kinds.BooleanTensorType,
    }
    width = spec.shape[1] if spec.shape is not None and len(spec.shape) == 2 else 1
    return known.get(spec.dtype, kinds.FloatTensorType)([None, width])


def _frame(tensors: Mapping[str, np.ndarray], names: Sequence[str]) -> Any:
    """The rows as the pipeline was fitted on them: columns with names."""
    pandas = need("pandas", "pandas")
    return pandas.DataFrame({name: tensors[name].reshape(-1) for name in names if name in tensors})


def _register_boosters(model: Any) -> list[str]:
    """Tell skl2onnx of boosters inside a pipeline; the packages that have them."""
    found = []
    for step in _steps(model):
        package, name = type(step).__module__.partition(".")[0], type(step).__name__
        if package not in ("lightgbm", "xgboost"):
            continue
        found.append(package)
        shapes = need("skl2onnx.common.shape_calculator", _CONVERTER)
        home = "LightGbm" if package == "lightgbm" else "XGBoost"
        module = f"onnxmltools.convert.{package}.operator_converters.{home}"
        convert = getattr(need(module, _CONVERTER), f"convert_{package}")
        is_classifier = hasattr(step, "predict_proba")
        need("skl2onnx", _CONVERTER).update_registered_converter(
            type(step),
            f"{package}{name}",
            shapes.calculate_linear_classifier_output_shapes
            if is_classifier
            else shapes.calculate_linear_regressor_output_shapes,
            convert,
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if is_classifier else None,
        )
    return found
