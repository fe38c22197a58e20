"""A model's input in a line: `pixels=float32[batch,3,224,224]`."""

from __future__ import annotations

import re

import numpy as np

from batchonnx.errors import ExportError, Problem
from batchonnx.runtime.signature import TensorSpec

_SPEC = re.compile(r"(?P<name>[^=]+)=(?P<dtype>\w+)\[(?P<dims>[^\]]*)\]")


def parse_input(text: str) -> TensorSpec:
    """An input with its type and shape; a dimension that is a word is of any size. Raises ExportError."""
    found = _SPEC.fullmatch(text.strip())
    if not found or not _is_dtype(found["dtype"]):
        facts = {"found": text, "expected": "NAME=DTYPE[DIM,…], as in x=float32[batch,28]"}
        raise ExportError(Problem("an input isn't written as one", facts, "write it as shown: --input-spec"))
    dims = [dim.strip() for dim in found["dims"].split(",") if dim.strip()]
    shape = tuple(int(dim) if dim.isdecimal() else dim for dim in dims)
    return TensorSpec(found["name"].strip(), found["dtype"], shape)


def _is_dtype(name: str) -> bool:
    try:
        return name == "string" or np.dtype(name).kind in "fiub"
    except TypeError:
        return False
