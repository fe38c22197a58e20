"""`bytes` of a feature: the first and last bytes of each value, as integers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import BytesColumn, RowShape, fits, told_shape
from batchonnx.planning.types import is_binary, is_text
from batchonnx.runtime.signature import TensorSpec


def bind_bytes(
    spec: TensorSpec, feature: Feature, job: JobFile, arrow_type: pa.DataType, wanted: RowShape | None
) -> BytesColumn:
    """Bind a column of bytes. wanted: the model's shape for one row; None: unknown rank.

    Raises ContractError for what doesn't fit together.
    """
    where = f"features.{spec.name}"
    assert feature.bytes is not None
    assert feature.column is not None
    facts = {"job": job.where(where), "model": str(spec), "found": f"column {feature.column} {arrow_type}"}
    if not is_binary(arrow_type) and not is_text(arrow_type):
        raise ContractError(Problem(f'column "{feature.column}" has no bytes', facts, "name a binary column"))
    width = feature.bytes.head + feature.bytes.tail
    if wanted is not None and not fits((width,), wanted):
        facts["found"] = f"head + tail = {width}"
        fix = "make head + tail what the model wants"
        raise ContractError(
            Problem(
                f'feature "{spec.name}" is {width} wide, the model wants {told_shape(wanted)}', facts, fix
            )
        )
    try:
        limits = np.iinfo(np.dtype(spec.dtype))
    except (TypeError, ValueError):
        raise ContractError(
            Problem(f'bytes need an integer input, "{spec.name}" is none', facts, "leave out `bytes`")
        ) from None
    if not limits.min <= feature.bytes.pad <= limits.max or limits.max < 255:
        facts["expected"] = f"{limits.min} to {limits.max}"
        raise ContractError(
            Problem(f"pad or byte values don't fit {spec.dtype}", facts, f"change {where}.bytes.pad")
        )
    return BytesColumn(spec, feature.column, feature.bytes, feature.batch_axis)
