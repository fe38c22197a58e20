"""What can be told of a model without running it: its file, its rules, its shapes, the memory it declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import prod

import onnx
from onnx import checker, shape_inference

from batchonnx.errors import ModelFileError, Problem
from batchonnx.lifecycle.validate.verdict import Check
from batchonnx.runtime.diagnose import not_a_model
from batchonnx.runtime.graph import all_nodes, parse_model
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.signature import OpLibrary

BUILT_IN = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
"""Domains whose operators ONNX Runtime brings along."""

_LINKED = re.compile(r"symbolic link|symlink|hard ?link", re.IGNORECASE)


def check_file(path: str) -> tuple[ModelFile | None, onnx.ModelProto | None, Check]:
    """The file, and its graph if it is ONNX and not ONNX Runtime's own format."""
    try:
        file = find_model(path)
        if (problem := not_a_model(file)) is not None:
            raise problem
    except ModelFileError as error:
        return None, None, Check("file", "error", one_line(error.problems[0]))
    model = parse_model(file.local)
    told = f"{file.bytes:,} bytes"
    if file.external:
        told += f", weights in {', '.join(file.external)}"
    if model is None:
        return (
            file,
            None,
            Check("file", "note", f"{told}, in ONNX Runtime's own format: only running it can tell more"),
        )
    opsets = ", ".join(f"{one.domain or 'ai.onnx'} {one.version}" for one in model.opset_import)
    return file, model, Check("file", "ok", f"{told}, IR {model.ir_version}, opsets {opsets}")


def check_domains(model: onnx.ModelProto, libraries: Sequence[OpLibrary]) -> Check:
    """Operators that only a library of somebody's own code would bring. libraries: that the job names."""
    own = {(function.domain, function.name) for function in model.functions}
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in all_nodes(model)
            if node.domain not in BUILT_IN and (node.domain, node.op_type) not in own
        }
    )
    if foreign:
        told = f"operators that need a library: {', '.join(foreign[:5])}"
        if libraries:
            names = ", ".join(library.name for library in libraries)
            return Check("domains", "note", f"{told}; the job names {names}")
        why = "none is loaded unless a job names it, since it may run any code: --job JOB, with "
        why += "session.custom_ops. Or export without custom operators"
        return Check("domains", "error", f"{told}; {why}")
    return Check("domains", "ok", "no operator needs a library of its own")


def check_rules(file: ModelFile) -> Check:
    """What onnx.checker says; by path, so that a model may be larger than 2 GB."""
    try:
        checker.check_model(str(file.local))
    except checker.ValidationError as error:
        told = first_line(str(error))
        if file.external and _LINKED.search(str(error)):
            return Check(
                "checker", "note", f"onnx itself won't read linked weights, ONNX Runtime does: {told}"
            )
        return Check("checker", "error", told)
    return Check("checker", "ok", "onnx.checker finds nothing")


def check_shapes(model: onnx.ModelProto, most_bytes: int) -> Iterator[Check]:
    """Whether declared shapes hold together, and whether a tensor alone is larger than the memory it may
    take."""
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        yield Check("shapes", "warning", f"what is declared contradicts itself: {first_line(str(error))}")
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    else:
        yield Check("shapes", "ok", "types and shapes that are declared hold together")
    size, name = max(_sizes(inferred.graph), default=(0, ""))
    if size > most_bytes:
        told = f'tensor "{name}" alone takes {size:,} bytes, of the {most_bytes:,} that the model may take'
        yield Check("memory", "error", told)


def one_line(problem: Problem) -> str:
    """A problem with what is needed to mend it."""
    facts = [f"{label} {text}" for label, text in problem.facts.items() if label not in ("model", "size")]
    return ". ".join([problem.title, *facts, problem.fix])


def first_line(text: str) -> str:
    """Of a library's message, what says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no reason given")[:300]


def _sizes(graph: onnx.GraphProto) -> Iterator[tuple[int, str]]:
    """Bytes of each tensor whose shape is known as a whole, at least a byte for each value."""
    for value in (*graph.value_info, *graph.output, *graph.input):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            yield prod(dim.dim_value for dim in tensor.shape.dim) * _bytes_each(tensor.elem_type), value.name


def _bytes_each(element: int) -> int:
    try:
        return max(1, int(onnx.helper.tensor_dtype_to_np_dtype(element).itemsize))
    except KeyError:
        return 1
