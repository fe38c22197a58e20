"""A model in half precision, as GPUs like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.tools import working_on
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx


def to_half(model: onnx.ModelProto, keep: Sequence[str], file: ModelFile) -> onnx.ModelProto:
    """The model with float16 inside; inputs and outputs stay float32, so that a job feeds it as before.

    keep: operators or names of nodes that stay in float32, beside those that have no float16 at all.
    Raises ContractError for a name that the model hasn't, ModelFileError.
    """
    # onnxconverter-common's function of the same name makes models that don't load.
    from onnxruntime.transformers import float16

    operators = {node.op_type for node in model.graph.node}
    names = {node.name for node in model.graph.node}
    if unknown := [one for one in keep if one not in operators | names]:
        facts = {**file.facts, "operators": ", ".join(sorted(operators))}
        fix = "name one of its operators, or a node"
        raise ContractError(Problem(f'the model has no operator or node "{unknown[0]}"', facts, fix))
    with working_on(file, "ONNX Runtime's float16 converter", "keep what it fails on: --keep OPERATOR"):
        half: onnx.ModelProto = float16.convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *(one for one in keep if one in operators)],
            node_block_list=[one for one in keep if one in names],
        )
    return half
