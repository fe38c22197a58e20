"""`value` of a feature: the same for every row."""

from __future__ import annotations

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import Constant, fits
from batchonnx.planning.types import exact_value
from batchonnx.runtime.signature import TensorSpec


def bind_constant(spec: TensorSpec, feature: Feature, job: JobFile) -> Constant:
    """Bind `value`. Raises ContractError where it isn't one of the input's, or of another shape."""
    where = f"features.{spec.name}"
    facts = {"job": job.where(f"{where}.value"), "model": str(spec), "found": repr(feature.value)[:80]}
    try:
        exact = exact_value(feature.value, spec.dtype)
    except (TypeError, ValueError) as error:
        fix = f"give a {spec.dtype} or a list of them"
        raise ContractError(
            Problem(f'value of "{spec.name}" is no {spec.dtype} ({error})', facts, fix)
        ) from error
    if spec.shape is None:
        return Constant(spec, exact, per_row=False)
    dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
    if fits(exact.shape, tuple(dims)) and not (
        exact.ndim and feature.batch_axis < len(dims) and dims[feature.batch_axis] is None
    ):
        return Constant(spec, exact, per_row=False)
    if dims and feature.batch_axis < len(dims):
        row = [*dims]
        del row[feature.batch_axis]
        if fits(exact.shape, tuple(row)):
            return Constant(spec, exact, per_row=True, batch_axis=feature.batch_axis)
        if exact.shape == () and all(dim is not None for dim in row):
            full = np.full([dim for dim in row if dim is not None], exact, dtype=exact.dtype)
            return Constant(spec, full, per_row=True, batch_axis=feature.batch_axis)
    facts["found"] = f"shape {list(exact.shape)}"
    fix = "give a value of the whole input's shape, or of one row's"
    raise ContractError(Problem(f"value of \"{spec.name}\" doesn't have the input's shape", facts, fix))
