"""The ONNX project's own cases of every operator: each gets a verdict, those that run correctly are valid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from batchonnx.lifecycle.feed import GivenRows
from batchonnx.lifecycle.validate import Limits, validate


def native(value: Any) -> Any:
    """What ONNX Runtime is fed with."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list):
        return [native(item) for item in value]
    return np.asarray(value) if value is not None else None


def is_as_expected(found: Any, expected: Any, rtol: float, atol: float) -> bool:
    if isinstance(found, list):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(is_as_expected(*pair, rtol, atol) for pair in pairs)
    if found is None or expected is None:
        return found is expected
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    if found.dtype.kind not in "fiub":
        return bool((found.astype(str) == expected.astype(str)).all())
    wide = found.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(*wide, rtol=rtol, atol=max(atol, 1e-5), equal_nan=True))


def runs_correctly(path: Path, tensors: dict[str, Any], expected: Sequence[Any], case: Any) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, tensors)
    except Exception:  # whatever it is: it doesn't run
        return False
    pairs = zip(found, map(native, expected), strict=True)
    return all(is_as_expected(*pair, case.rtol, case.atol) for pair in pairs)


@pytest.mark.slow
def test_each_case_gets_a_verdict_and_those_that_run_correctly_are_valid(tmp_path: Path) -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    paths, rows, correct = [], [], set()
    for case in cases:
        path = tmp_path / f"{case.name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        inputs, outputs = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        tensors = {name: native(value) for name, value in zip(names, inputs, strict=True)}
        if runs_correctly(path, tensors, outputs, case):
            correct.add(str(path))
        paths.append(str(path))
        rows.append(GivenRows(tensors, "the case"))
    found = list(validate(paths, rows, Limits(timeout_s=30)))
    assert [one.model for one in found] == paths
    assert len(found) >= 1884
    assert not [
        one for one in found if any(check.told.startswith("ends the process") for check in one.checks)
    ]
    assert not [one for one in found if any(check.told.startswith("gives no answer") for check in one.checks)]
    assert [one for one in found if one.model in correct and not one.is_valid] == []
    assert len(correct) > 1500
    # Warnings are for infinities made of nothing, and an operator whose shapes onnx can't infer.
    doubtful = [one for one in found if one.model in correct and one.has_warnings]
    assert {check.name for one in doubtful for check in one.checks if check.level == "warning"} == {
        "finite",
        "shapes",
    }
    assert len(doubtful) < 20
