"""Why a file isn't a model that can be run: found out only after loading has failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from batchonnx.errors import ModelFileError, Problem
from batchonnx.job.spec.session import EXTENSIONS
from batchonnx.runtime.foreign import foreign_kind
from batchonnx.runtime.graph import all_graphs, element_name, parse_model
from batchonnx.runtime.model_file import ModelFile

_UPGRADE = "pip install --upgrade onnxruntime, or export again with {}"
_NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"^Load model from .+? failed: ?",
    r"^Exception during initialization: ",
    r"\S*onnxruntime/\S+:\d+ [^\n]*?\) (?=\S)",
    r"\b\w+\.(cc|h):\d+ \w+ ",
)


def clean(message: str) -> str:
    """ONNX Runtime's message without its prefixes, paths of its sources and surplus blanks."""
    for noise in _NOISE:
        message = re.sub(noise, "", message.strip())
    return re.sub(r"\s+", " ", message).strip()[:600]


def diagnose(file: ModelFile, message: str) -> ModelFileError:
    """Name what is wrong with a model that didn't load. message: ONNX Runtime's words, cleaned."""
    return not_a_model(file) or ModelFileError(_unsupported(file, message))


def not_a_model(file: ModelFile) -> ModelFileError | None:
    """The error for a file that holds no ONNX graph; None for one that does."""
    kind = foreign_kind(file.local, file.head)
    if kind is not None:
        what, fix = kind
        return ModelFileError(Problem(f"the model {what}", {**file.facts, **_size(file)}, fix))
    if file.head[4:8] != b"ORTM" and parse_model(file.local) is None:
        fix = "copy or export it again, and compare the sizes"
        title = "the model is truncated, or no ONNX file at all"
        return ModelFileError(Problem(title, {**file.facts, **_size(file)}, fix))
    return None


def _size(file: ModelFile) -> dict[str, str]:
    return {"size": f"{file.size:,} bytes"}


def _unsupported(file: ModelFile, message: str) -> Problem:
    for pattern, explain in _CAUSES:
        if match := re.search(pattern, message):
            title, facts, fix = explain(file, match)
            return Problem(title, {**file.facts, **(facts or {"found": message})}, fix)
    title, fix = "ONNX Runtime can't load the model", "see what onnx.checker.check_model(path, True) says"
    return Problem(title, {**file.facts, "found": message}, fix)


_Explained = tuple[str, Mapping[str, str], str]


def _unknown_operator(file: ModelFile, match: re.Match[str]) -> _Explained:
    import onnx

    name, opset = match[1], match[2]
    title = f"ONNX Runtime doesn't know the operator {name} in opset {opset}"
    if onnx.defs.has(name):
        since = min(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == name)
        return title, {"found": f"{name} came with opset {since}"}, f"export for opset {since} or newer"
    return title, {}, _UPGRADE.format("operators of ONNX")


def _unknown_domain(file: ModelFile, match: re.Match[str]) -> _Explained:
    domain, name = match[1], match[2]
    title = f"ONNX Runtime doesn't know the operator {name} of the domain {domain}"
    if domain in ("com.microsoft", "ai.onnx.ml"):
        return title, {}, _UPGRADE.format("operators of ONNX")
    library = EXTENSIONS if domain == "ai.onnx.contrib" else "LIBRARY"
    named = f"session: {{custom_ops: {library}}}"
    return title, {}, f"name the library that has it in the job ({named}), or export without custom operators"


def _unlisted_domain(file: ModelFile, match: re.Match[str]) -> _Explained:
    title = f"the model uses the domain {match[1]} and names no opset for it"
    return title, {}, "export it again, with an opset for each domain"


def _new_opset(file: ModelFile, match: re.Match[str]) -> _Explained:
    domain = "" if match[2] == "ai.onnx" else f" of {match[2]}"
    facts = {"found": f"opset {match[1]}{domain}", "expected": f"opset {match[3]} or older"}
    title = "the model is too new for this ONNX Runtime"
    return title, facts, _UPGRADE.format(f"opset {match[3]}{domain}")


def _new_ir(file: ModelFile, match: re.Match[str]) -> _Explained:
    facts = {"found": f"IR version {match[1]}", "expected": f"IR version {match[2]} or older"}
    fix = _UPGRADE.format(f"IR version {match[2]} (model.ir_version)")
    return "the model is too new for this ONNX Runtime", facts, fix


def _no_kernel(file: ModelFile, match: re.Match[str]) -> _Explained:
    name, opset, node = match[1], match[2], match[3]
    types = _types_at(file, name, node)
    of = f" of {types}" if types else ""
    where = f' at node "{node}"' if node else ""
    title = f"the CPU has no kernel for {name}{of} (opset {opset}){where}"
    return title, {}, "export with other types; float32 works everywhere"


def _inconsistent(file: ModelFile, match: re.Match[str]) -> _Explained:
    fix = "export it again; onnx.checker.check_model(path, True) says more"
    return "the model's graph contradicts itself", {}, fix


_CAUSES: tuple[tuple[str, Callable[[ModelFile, re.Match[str]], _Explained]], ...] = (
    (r"No Op registered for (\S+) with domain_version of (\d+)", _unknown_operator),
    (r"(\S+):(\S+)\(-?\d+\) is not a registered function/op", _unknown_domain),
    (r"No opset import for domain '(.*?)'", _unlisted_domain),
    (
        r"Opset (\d+) is under development.* official support for domain (\S+) is till opset (\d+)",
        _new_opset,
    ),
    (r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", _new_ir),
    (r"Could not find an implementation for (\w+)\((\d+)\) node with name '(.*?)'", _no_kernel),
    (r"This is an invalid model|ShapeInferenceError|TypeInferenceError|Invalid model\.", _inconsistent),
)


def _types_at(file: ModelFile, operator: str, name: str) -> str:
    """Element types that a node takes, as far as the file itself declares them."""
    model = parse_model(file.local)
    for graph in all_graphs(model) if model else ():
        known = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
        known |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == operator and node.name == name:
                types = (element_name(known[i]) for i in node.input if known.get(i))
                return ", ".join(dict.fromkeys(types))
    return ""
