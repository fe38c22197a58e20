"""A model with all of its weights in memory, and back into files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batchonnx.errors import ModelFileError, Problem, StorageError
from batchonnx.runtime.diagnose import not_a_model
from batchonnx.runtime.model_file import ModelFile

if TYPE_CHECKING:
    import onnx

ONE_FILE_BYTES = 2**31 - 2**20
"""A protobuf holds less than 2 GB; what is written into its metadata later needs some room."""

EXTERNAL_BYTES = 1024
"""Smaller tensors stay in the model's own file, where its shapes can be inferred from them."""


def load_whole(file: ModelFile) -> onnx.ModelProto:
    """The model with its external weights. Raises ModelFileError for a file that isn't ONNX."""
    import onnx

    if file.head[4:8] == b"ORTM":
        fix = "start from the ONNX file that it was made of"
        title = "the model is in ONNX Runtime's own format, not ONNX"
        raise ModelFileError(Problem(title, file.facts, fix))
    if (error := not_a_model(file)) is not None:
        raise error
    try:
        return onnx.load(file.local)
    except (onnx.checker.ValidationError, OSError) as error:
        # onnx takes no weights through links, which caches of hubs are made of.
        found = str(error).splitlines()[0]
        fix = "copy the model and its weights as files of their own: cp -L"
        raise ModelFileError(
            Problem("the model's weights can't be read", {**file.facts, "found": found}, fix)
        ) from error


def save_whole(model: onnx.ModelProto, path: Path, *, is_external: bool = False) -> None:
    """Write one file, or where it would be too large for that, the weights to `path`.data beside it.

    is_external: the weights beside it, whatever their size. model: its weights are moved out of it then.
    Raises StorageError.
    """
    import onnx

    try:
        if is_external or model.ByteSize() > ONE_FILE_BYTES:
            beside = f"{path.name}.data"
            onnx.save(
                model,
                path,
                save_as_external_data=True,
                location=beside,
                size_threshold=EXTERNAL_BYTES,
                convert_attribute=False,
            )
        else:
            onnx.save(model, path)
    except OSError as error:
        facts = {"file": str(path), "found": error.strerror or str(error)}
        raise StorageError(Problem("the model can't be written", facts, "write to another folder")) from error


def take_weights(model: onnx.ModelProto) -> dict[str, bytes]:
    """Take the large initializers' values out: what works on the graph alone takes no more than 2 GB."""
    taken = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > EXTERNAL_BYTES:
            taken[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    return taken


def put_weights(model: onnx.ModelProto, weights: dict[str, bytes]) -> None:
    """Put them back, also into another model whose initializers have the same names and types."""
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights[tensor.name]
