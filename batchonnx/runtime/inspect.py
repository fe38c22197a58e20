"""What a model file says of itself, whether or not it can be run here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from batchonnx.errors import DependencyError, ModelFileError, Problem
from batchonnx.runtime.diagnose import not_a_model
from batchonnx.runtime.graph import (
    all_nodes,
    declared_inputs,
    declared_outputs,
    element_name,
    parse_model,
    weights,
)
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.session import load_model
from batchonnx.runtime.signature import ModelSignature

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class ModelCard:
    """A model in figures.

    signature: as ONNX Runtime sees it; as declared in the file where that can't load it.
    problem: why ONNX Runtime can't load it; None if it can.
    opsets: domain -> version ("" is ONNX's own).
    operators: type -> number of nodes, subgraphs included. parameters: values in initializers.
    weights: element type, by ONNX's name -> bytes. external: files that hold weights, beside the model.
    """

    signature: ModelSignature
    problem: Problem | None
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    operators: Mapping[str, int]
    parameters: int
    weights: Mapping[str, int]
    external: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/cli.md."""
        card = asdict(self)
        signature = card.pop("signature")
        return {**signature, **card}


def inspect_model(path: str) -> ModelCard:
    """Read a model's graph, without its external weights.

    Raises ModelFileError if the file holds no ONNX graph, or its external weights aren't there.
    """
    file = find_model(path)
    model = parse_model(file.local)
    if model is None:
        raise not_a_model(file) or _ort_format(file)
    signature, problem = _signature(file, model)
    operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in all_nodes(model))
    held: Counter[str] = Counter()
    parameters = 0
    for tensor in weights(model):
        parameters += int(prod(tensor.dims))
        held[element_name(tensor.data_type)] += _bytes(tensor)
    return ModelCard(
        signature=signature,
        problem=problem,
        ir_version=model.ir_version,
        opsets={opset.domain: opset.version for opset in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        operators=dict(operators.most_common()),
        parameters=parameters,
        weights=dict(held.most_common()),
        external=file.external,
    )


def _signature(file: ModelFile, model: onnx.ModelProto) -> tuple[ModelSignature, Problem | None]:
    try:
        return load_model(file, threads=1).signature, None
    except (ModelFileError, DependencyError) as error:
        declared = ModelSignature(
            path=file.path,
            digest=file.digest,
            bytes=file.bytes,
            inputs=declared_inputs(model),
            outputs=declared_outputs(model),
            producer=model.producer_name,
            metadata={entry.key: entry.value for entry in model.metadata_props},
        )
        return declared, error.problems[0]


def _bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's values; of text, of the letters."""
    import onnx

    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    count = int(prod(tensor.dims))
    name = element_name(tensor.data_type)
    if match := re.fullmatch(r"(?:u?int|float)([24])(?:e\w+)?", name):  # packed: several to a byte
        return ceil(count * int(match[1]) / 8)
    if tensor.data_type not in onnx.TensorProto.DataType.values():
        return len(tensor.raw_data)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _ort_format(file: ModelFile) -> ModelFileError:
    fix = "inspect the ONNX file that it was made from"
    return ModelFileError(Problem("the model is in ONNX Runtime's own format, not ONNX", file.facts, fix))
