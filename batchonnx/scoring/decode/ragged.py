"""Which of a row's values count: what lies behind them is padding."""

from __future__ import annotations

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.planning.bindings import Counted
from batchonnx.runtime.session import PredictError
from batchonnx.runtime.signature import TensorSpec


def which_count(counted: Counted, by: np.ndarray, spec: TensorSpec, block: np.ndarray) -> np.ndarray:
    """bool[rows, n] for an output [rows, n, …]. by: as fed, or as the model gives it.

    Raises ContractError where it isn't about as many values, PredictError for a row's length that can't be.
    """
    if block.ndim < 2:
        raise _misfit(counted, by, spec, block, "rows of several values")
    if not counted.is_length:
        if by.shape != block.shape[:2]:
            raise _misfit(counted, by, spec, block, f"a mask {list(block.shape[:2])}")
        return np.asarray(by != 0)
    if by.size != len(block):
        raise _misfit(counted, by, spec, block, f"{len(block)} lengths")
    lengths = by.reshape(-1)
    if not ((lengths >= 0) & (lengths <= block.shape[1])).all():
        told = f"{lengths.min()}" if len(lengths) == 1 else f"{lengths.min()} to {lengths.max()}"
        raise PredictError(f'"{counted.by.name}" is {told}, of {block.shape[1]} values of "{spec.name}"')
    return np.asarray(np.arange(block.shape[1]) < lengths[:, None])


def _misfit(
    counted: Counted, by: np.ndarray, spec: TensorSpec, block: np.ndarray, expected: str
) -> ContractError:
    facts = {
        "model": f"{spec}, {counted.by}",
        "expected": expected,
        "found": f"{by.dtype}{list(by.shape)}, of values {block.dtype}{list(block.shape)}",
    }
    key = "length" if counted.is_length else "mask"
    fix = f"name what says how many values of {spec.name} count: {key}"
    return ContractError(Problem(f'"{counted.by.name}" isn\'t about the values of "{spec.name}"', facts, fix))
