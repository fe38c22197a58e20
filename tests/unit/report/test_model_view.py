"""A model card in words."""

from __future__ import annotations

from pathlib import Path

import onnx

from batchonnx.lifecycle.inspection import look_into
from batchonnx.report.model_view import format_inspection
from tests import models


def test_a_card_is_a_screenful_of_facts(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx", width=10, classes=4)
    text = format_inspection(look_into(str(path)))
    for words in (
        "input      x float32[n, 10]",
        "output     scores float32[n, 4]",
        "44 parameters",
        "Gemm 1",
    ):
        assert words in text
    assert "can't run" not in text


def test_a_model_that_can_t_be_run_here_says_why_and_what_to_do(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)
    text = format_inspection(look_into(str(path)))
    assert "can't run  the model is too new for this ONNX Runtime" in text
    assert "fix        pip install --upgrade onnxruntime" in text
    assert "input      x float32[n, 3]" in text
