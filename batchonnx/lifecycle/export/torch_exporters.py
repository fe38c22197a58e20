"""PyTorch's two exporters: the newer follows the program, the older one run of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.draft import Exporter, Request
from batchonnx.lifecycle.export.packages import need
from batchonnx.lifecycle.quiet import quiet

_ONE_FILE_BYTES = 1_800_000_000
"""Protobuf ends at 2 GB; larger weights go to a file beside the model."""

_OLDER = "the older one has followed one run: a branch that depends on values is fixed as that run took it"


@dataclass(frozen=True)
class TorchModel:
    """A module with all that an exporter has to know.

    examples: a tensor for each argument. names: of the inputs, in their order. opened: of each input, axis ->
    name of an open dimension. program: what was exported from torch already, and is not exported again.
    """

    module: Any
    examples: tuple[Any, ...]
    names: tuple[str, ...]
    opened: tuple[Mapping[int, str], ...]
    program: Any = None

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """The module's outputs, one after the other, on the CPU."""
        return list(self.named(tensors).values())

    def named(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Output -> tensor, by the keys of a dict that the module gives, else by number."""
        torch = need("torch", "torch")
        with torch.no_grad():
            found = self.module(*tensors)
        if isinstance(found, Mapping):
            return {str(name): one.detach() for name, one in found.items() if isinstance(one, torch.Tensor)}
        flat = [
            one.detach() for one in torch.utils._pytree.tree_leaves(found) if isinstance(one, torch.Tensor)
        ]
        if len(flat) == 1:
            return {"output": flat[0]}
        return {f"output_{number}": one for number, one in enumerate(flat)}


def write(model: TorchModel, request: Request, target: Path) -> tuple[Exporter, tuple[str, ...]]:
    """Write the ONNX file; which exporter did, and what the user should know of it. Raises ExportError."""
    outputs = _outputs(model, request)
    if request.exporter == "torchscript":
        return _older(model, outputs, request, target, None)
    try:
        with quiet():
            _export_dynamo(model, outputs, request, target)
    except Exception as error:  # of many kinds: whatever the module does that can't be followed
        if request.exporter == "dynamo" or model.program is not None:
            raise _refused({**request.facts, "found": _reason(error)}) from error
        return _older(model, outputs, request, target, _reason(error))
    _name_batch(target)
    return "dynamo", ()


def _older(
    model: TorchModel, outputs: Sequence[str], request: Request, target: Path, why: str | None
) -> tuple[Exporter, tuple[str, ...]]:
    try:
        with quiet():
            _export_torchscript(model, outputs, request, target)
    except Exception as error:  # as above
        newer = {"newer": why} if why is not None else {}
        raise _refused({**request.facts, **newer, "older": _reason(error)}) from error
    return "torchscript", (
        () if why is None else (f"the newer exporter can't follow the module ({why}); {_OLDER}",)
    )


def _export_dynamo(model: TorchModel, outputs: Sequence[str], request: Request, target: Path) -> None:
    torch = need("torch", "torch")
    dims = {name: torch.export.Dim(name) for opened in model.opened for name in opened.values()}
    shapes = tuple({axis: dims[name] for axis, name in opened.items()} for opened in model.opened)
    torch.onnx.export(
        model.program or model.module,
        () if model.program is not None else model.examples,
        str(target),
        input_names=list(model.names),
        output_names=list(outputs),
        dynamic_shapes=None if model.program is not None else shapes,
        opset_version=request.opset,
        dynamo=True,
        external_data=_is_large(model),
        verbose=False,
    )


def _export_torchscript(model: TorchModel, outputs: Sequence[str], request: Request, target: Path) -> None:
    torch = need("torch", "torch")
    axes: dict[str, Mapping[int, str]] = dict(zip(model.names, map(dict, model.opened), strict=True))
    batch = next((name for opened in model.opened if (name := opened.get(0))), None)
    if batch is not None:
        axes |= {name: {0: batch} for name in outputs}
    torch.onnx.export(
        model.module,
        model.examples,
        str(target),
        input_names=list(model.names),
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=request.opset,
        dynamo=False,
    )


def _outputs(model: TorchModel, request: Request) -> list[str]:
    """What the outputs are to be called. Raises ExportError where the module fails, or gives others."""
    try:
        with quiet():
            found = list(model.named(model.examples))
    except Exception as error:  # the module's own code
        facts = {
            **request.facts,
            "inputs": ", ".join(
                f"{n} {list(e.shape)}" for n, e in zip(model.names, model.examples, strict=True)
            ),
            "found": _reason(error),
        }
        fix = "describe what it takes: --input-spec; or have the factory give examples, too"
        raise ExportError(Problem("the module fails on examples of its inputs", facts, fix)) from error
    if request.outputs and len(request.outputs) != len(found):
        facts = {**request.facts, "found": ", ".join(found), "asked for": ", ".join(request.outputs)}
        raise ExportError(
            Problem("the module has another number of outputs", facts, "name each: --output-name")
        )
    # An input and an output can't have one name.
    return list(request.outputs) or [f"{name}_out" if name in model.names else name for name in found]


def _is_large(model: TorchModel) -> bool:
    values = [*model.module.parameters(), *model.module.buffers()]
    return int(sum(one.numel() * one.element_size() for one in values)) > _ONE_FILE_BYTES


def _name_batch(path: Path) -> None:
    """Call the axis of rows "batch" where a program has a number for its name."""
    model = onnx.load(path, load_external_data=False)
    shapes = [value.type.tensor_type.shape for value in (*model.graph.input, *model.graph.output)]
    old = next((shape.dim[0].dim_param for shape in shapes if shape.dim), "")
    if not re.fullmatch(r"s\d+", old):
        return
    for shape in (*shapes, *(value.type.tensor_type.shape for value in model.graph.value_info)):
        for dim in shape.dim:
            if dim.dim_param == old:
                dim.dim_param = "batch"
    path.write_bytes(model.SerializeToString())


def _refused(facts: Mapping[str, str]) -> ExportError:
    fix = "rewrite what it can't follow; torch.export's own documentation shows how"
    return ExportError(Problem("PyTorch can't export the module", facts, fix))


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at first: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on the calling thread alone, whose time is what a comparison takes."""
    torch = need("torch", "torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
