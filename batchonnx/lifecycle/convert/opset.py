"""A model in another version of ONNX's operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.tools import working_on
from batchonnx.lifecycle.whole_model import put_weights, take_weights
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx

LOWEST = 7
"""ONNX Runtime runs nothing older."""


def to_opset(model: onnx.ModelProto, opset: int, file: ModelFile) -> onnx.ModelProto:
    """By ONNX's version converter. Raises ContractError for an opset that there isn't, ModelFileError.

    Up it knows nearly all operators, down only some. model: its weights are moved out of it.
    """
    import onnx

    highest = onnx.defs.onnx_opset_version()
    if not LOWEST <= opset <= highest:
        facts = {**file.facts, "found": f"opset {opset}", "expected": f"{LOWEST} to {highest}"}
        raise ContractError(Problem("there is no such opset to convert to", facts, "name one of those"))
    now = next((one.version for one in model.opset_import if not one.domain), opset)
    fix = f"export it anew with opset {opset}: ONNX's converter knows few operators on the way down"
    if opset > now:
        fix = f"name a lower opset, or export it anew with opset {opset}"
    weights = take_weights(model)
    with working_on(file, f"ONNX's converter from opset {now} to {opset}", fix):
        converted = onnx.version_converter.convert_version(model, opset)
    put_weights(converted, weights)
    return converted
