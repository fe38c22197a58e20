"""Blocks of a transformer as one operator each, by ONNX Runtime's own optimizer."""

from __future__ import annotations

import tempfile
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from batchonnx.errors import ContractError, ModelFileError, Problem
from batchonnx.lifecycle.tools import require_tools, working_on
from batchonnx.lifecycle.whole_model import save_whole
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx


def fuse(model: onnx.ModelProto, kind: str, heads: int, hidden: int, file: ModelFile) -> onnx.ModelProto:
    """The model with fused operators of ONNX Runtime's own domain, which other runtimes don't have.

    kind: as `onnxruntime.transformers` calls it. heads, hidden: 0: found in the graph.
    Raises DependencyError, ContractError for an unknown kind, ModelFileError if nothing is there to fuse.
    """
    require_tools("fusing a transformer", "optimize", "sympy")
    from onnxruntime.transformers import optimizer

    if kind not in optimizer.MODEL_TYPES:
        near = get_close_matches(kind, optimizer.MODEL_TYPES, 1)
        facts = {"found": kind, "expected": ", ".join(sorted(optimizer.MODEL_TYPES))}
        fix = f"did you mean {near[0]}?" if near else "name one of those; most encoders are bert"
        raise ContractError(Problem("ONNX Runtime has no fusions for this kind of model", facts, fix))
    before = Counter(node.op_type for node in model.graph.node)
    with (
        tempfile.TemporaryDirectory() as folder,
        working_on(file, "ONNX Runtime's transformer optimizer", "optimize it without --fuse"),
    ):
        path = Path(folder) / "model.onnx"
        save_whole(model, path)
        fused = optimizer.optimize_model(str(path), kind, num_heads=heads, hidden_size=hidden, opt_level=0)
        found = fused.get_fused_operator_statistics()
    if not any(number > before[operator] for operator, number in found.items()):
        title = f"nothing in the model is fused as a part of a {kind} model"
        fix = "name its kind and sizes: --fuse KIND --heads N --hidden N; or leave --fuse out"
        raise ModelFileError(Problem(title, file.facts, fix))
    result: onnx.ModelProto = fused.model
    return result
