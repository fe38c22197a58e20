"""Constants folded, what computes nothing dropped: for any runtime and any machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchonnx.lifecycle.tools import require_tools, working_on
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx


def simplify(model: onnx.ModelProto, file: ModelFile) -> onnx.ModelProto:
    """The model as onnxslim simplifies it, under the same inputs and outputs.

    Raises DependencyError, ModelFileError.
    """
    require_tools("simplifying a model", "optimize", "onnxslim")
    import onnxslim

    with working_on(file, "onnxslim", "optimize it without --simplify"):
        slim: onnx.ModelProto = onnxslim.slim(model)
    # It may give open dimensions names of its own, and those that a job knows are these.
    for new, old in ((slim.graph.input, model.graph.input), (slim.graph.output, model.graph.output)):
        declared = {value.name: value for value in old}
        for value in new:
            value.CopyFrom(declared[value.name])
    return slim
