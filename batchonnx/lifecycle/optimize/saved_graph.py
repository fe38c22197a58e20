"""What ONNX Runtime makes of a model when it loads it, kept: a session is then ready sooner."""

from __future__ import annotations

from pathlib import Path

from batchonnx.lifecycle.ort_graph import ALL, BASIC, EXTENDED, write_graph
from batchonnx.lifecycle.tools import working_on
from batchonnx.lifecycle.whole_model import load_whole, save_whole
from batchonnx.runtime.machine import cpu_kind
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.tied import TIED

LEVELS = {"basic": BASIC, "extended": EXTENDED, "all": ALL}


def save_graph(path: Path, level: str, file: ModelFile) -> list[str]:
    """Put what ONNX Runtime makes of the model at `path` in its place; gives what it is valid for.

    level: of `LEVELS`. file: names the model in errors. Raises ModelFileError.
    """
    import onnxruntime

    optimized = path.with_name(f"{path.name}.optimized")
    with working_on(file, "ONNX Runtime", "optimize it without --graph"):
        write_graph(path, optimized, LEVELS[level])
        model = load_whole(find_model(str(optimized)))
    if level == "all":
        model.metadata_props.add(key=TIED, value=cpu_kind())
    for old in path.parent.iterdir():
        old.unlink()
    save_whole(model, path)
    return [_valid_for(level, onnxruntime.__version__)]


def _valid_for(level: str, version: str) -> str:
    if level == "basic":
        return "the graph was optimized for any runtime and machine"
    if level == "extended":
        return f"the graph holds ONNX Runtime's own operators: made by {version}, for the CPU provider"
    return f"the graph is for this kind of CPU, {cpu_kind()}, and ONNX Runtime {version}; refused on others"
