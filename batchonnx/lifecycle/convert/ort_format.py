"""ONNX Runtime's own format: what phones and small builds load."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchonnx.lifecycle.ort_graph import ALL, write_graph
from batchonnx.lifecycle.tools import working_on
from batchonnx.lifecycle.whole_model import save_whole
from batchonnx.runtime.machine import cpu_kind
from batchonnx.runtime.model_file import ModelFile
from batchonnx.runtime.tied import TIED

if TYPE_CHECKING:
    import onnx

OPERATORS = ".operators.config"
"""Behind the model's name: what ONNX Runtime's build takes as --include_ops_by_config."""

_TIED_OPTIMIZER = "NchwcTransformer"
"""Lays weights out for one width of vectors."""


def write_ort(model: onnx.ModelProto, path: Path, this_cpu: bool, file: ModelFile) -> list[str]:
    """Write the model, and beside it the list of its operators; gives what it is valid for.

    A session of a file in this format optimizes nothing any more: without `this_cpu` some speed is lost.
    Raises ModelFileError.
    """
    import onnxruntime
    from onnxruntime.tools.ort_format_model import create_config_from_models

    if this_cpu:
        model.metadata_props.add(key=TIED, value=cpu_kind())
    with (
        tempfile.TemporaryDirectory() as folder,
        working_on(file, "ONNX Runtime", "see what batchonnx model validate says of it"),
    ):
        whole = Path(folder) / "model.onnx"
        save_whole(model, whole)
        # `onnxruntime.tools.convert_onnx_models_to_ort` does the same, and prints.
        write_graph(whole, path, ALL, [] if this_cpu else [_TIED_OPTIMIZER], is_ort=True)
        config = path.with_name(path.name + OPERATORS)
        create_config_from_models([path], config, False)
        # It names the model by where it was made, which is a folder that won't be there.
        config.write_text(config.read_text().replace(str(path), path.name))
    version = onnxruntime.__version__
    if this_cpu:
        return [f"for this kind of CPU, {cpu_kind()}, and ONNX Runtime {version}: refused on others"]
    return [f"portable; ONNX Runtime {version} or newer"]
