"""A model as ONNX Runtime would run it, as a file: the seam to what its sessions make of a graph."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from batchonnx.runtime.session import session_options

BASIC, EXTENDED, ALL = "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"


def write_graph(
    source: Path, target: Path, level: str, but: Collection[str] = (), is_ort: bool = False
) -> None:
    """Write what a session of the model at `source` would run; large weights to `target`.data beside it.

    level: by ONNX Runtime's own name. but: optimizers that are left out. is_ort: in its own format, which is
    one file. Raises what ONNX Runtime does.
    """
    import onnxruntime

    options = session_options(threads=1)
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(target)
    if is_ort:
        options.add_session_config_entry("session.save_model_format", "ORT")
    else:
        # Else what is written goes on reading the weights of the model that it was made of.
        weights = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(weights, f"{target.name}.data")
    onnxruntime.InferenceSession(
        str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(but) or None
    )
