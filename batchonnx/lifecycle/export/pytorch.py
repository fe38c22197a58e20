"""PyTorch: modules that a factory makes, weights of a checkpoint, exported programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.errors import ExportError, HookError, Problem
from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.packages import need
from batchonnx.lifecycle.export.pickles import require_trust
from batchonnx.lifecycle.export.torch_exporters import TorchModel, one_thread, write
from batchonnx.planning.hooks import forget_hooks, load_hook, raised_at
from batchonnx.runtime.signature import TensorSpec

MAX_DIFF = 1e-4
"""Sums of 32 bits in another order; a network adds up many."""

BATCH = "batch"
_INSTALL = "'batchonnx[export]'"
_OPEN_SIZE = 5
"""Of the first open dimension that isn't the batch, in the examples; each further one has one more."""

_NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep a module's weights."""


def export_factory(request: Request, _: None, target: Path) -> Draft:
    """What the factory makes. Raises HookError, ExportError, DependencyError."""
    module, examples = _made(request)
    return _export(module, examples, request, target)


def export_checkpoint(request: Request, path: Path, target: Path) -> Draft:
    """Weights, put into what the factory makes; or a whole pickled module, if it is trusted.

    Raises HookError, ExportError, DependencyError.
    """
    torch = need("torch", _INSTALL)
    found = _read(path, request)
    if isinstance(found, torch.nn.Module):
        return _export(found, None, request, target)
    if not isinstance(found, Mapping):
        facts = {**request.facts, "found": type(found).__name__}
        raise ExportError(Problem("the checkpoint holds no weights", facts, "save model.state_dict()"))
    if request.factory is None:
        fix = "name what makes the module that they belong to: --from MODULE:FUNCTION"
        raise ExportError(Problem("a checkpoint holds weights alone, no model", request.facts, fix))
    module, examples = _made(request)
    weights = next((found[key] for key in _NESTED if isinstance(found.get(key), Mapping)), found)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        said = [line.strip() for line in str(error).splitlines()]
        facts = {**request.facts, "found": " ".join(said[1:])[:300] or said[0][:300]}
        fix = "name the factory that made the model which these weights are from"
        raise ExportError(Problem("the weights don't fit the module", facts, fix)) from error
    return _export(module, examples, request, target)


def export_program(request: Request, path: Path, target: Path) -> Draft:
    """What `torch.export.save` wrote, with the examples and the open dimensions that it holds.

    Such an archive may hold pickles, which torch opens whoever made it.
    Raises ExportError, DependencyError.
    """
    require_trust(request.source or str(path), request.trust_pickle)
    torch = need("torch", _INSTALL)
    try:
        program = torch.export.load(path)
    except Exception as error:  # of a dozen kinds, by what the archive lacks
        facts = {**request.facts, "found": f"{type(error).__name__}: {_first_line(error)}"}
        fix = "save it again with the torch that is installed here: torch.export.save"
        raise ExportError(Problem("the exported program can't be read", facts, fix)) from error
    examples = tuple(program.example_inputs[0])
    if program.example_inputs[1] or not all(isinstance(one, torch.Tensor) for one in examples):
        fix = "export it with positional tensors alone"
        raise ExportError(Problem("the program takes more than positional tensors", request.facts, fix))
    names = [spec.name for spec in request.inputs] or list(program.graph_signature.user_inputs)
    model = TorchModel(program.module(), examples, tuple(names), ({},) * len(examples), program)
    return _drafted(model, request, target)


def export_module(module: Any, request: Request, target: Path) -> Draft:
    """A module that came out of a pickle. Raises ExportError, DependencyError."""
    return _export(module, None, request, target)


def _export(module: Any, examples: tuple[Any, ...] | None, request: Request, target: Path) -> Draft:
    module = module.eval().to("cpu")
    specs = request.inputs or (_specs_of(module, examples) if examples is not None else ())
    if not specs:
        facts = {**request.facts, "forward": str(inspect.signature(module.forward))}
        fix = (
            "say it: --input-spec 'x=float32[batch,28]', one for each; or have the factory give examples, too"
        )
        raise ExportError(Problem("what the module takes isn't known", facts, fix))
    given = _examples(specs) if examples is None else examples
    opened = tuple(
        {axis: dim for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)} for spec in specs
    )
    return _drafted(TorchModel(module, given, tuple(spec.name for spec in specs), opened), request, target)


def _drafted(model: TorchModel, request: Request, target: Path) -> Draft:
    torch = need("torch", _INSTALL)
    need("onnxscript", _INSTALL)
    exporter, notes = write(model, request, target)

    def answer(tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with one_thread():
            found = model.run([torch.from_numpy(tensors[name]) for name in model.names])
        return [one.numpy() for one in found]

    return Draft(answer, ("torch", "onnxscript", "onnx"), MAX_DIFF, {"exporter": exporter}, notes)


def _made(request: Request) -> tuple[Any, tuple[Any, ...] | None]:
    """What the factory gives: a module, and example tensors if it has them."""
    torch = need("torch", _INSTALL)
    assert request.factory is not None
    where = f"--from {request.factory}"
    facts = {"factory": request.factory}
    if ":" not in request.factory:
        fix = "name it as module:function"
        raise HookError(Problem("the factory isn't named as one", facts, fix))
    forget_hooks()
    factory = load_hook(request.factory, Path.cwd(), where)
    try:
        made = factory()
    except Exception as error:
        facts |= {"found": f"{type(error).__name__}: {_first_line(error)}", "at": raised_at(error)}
        raise HookError(
            Problem("the factory raised", facts, "mend it; it is called without arguments")
        ) from error
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        facts |= {
            "found": type(made).__name__,
            "expected": "a torch.nn.Module, or it and a tuple of example tensors",
        }
        raise HookError(Problem("the factory gave something else", facts, "return the module"))
    if examples is None:
        return module, None
    given = tuple(examples) if isinstance(examples, Sequence) else (examples,)
    if not all(isinstance(one, torch.Tensor) for one in given):
        facts |= {"found": ", ".join(type(one).__name__ for one in given), "expected": "tensors"}
        raise HookError(Problem("the factory's examples aren't tensors", facts, "give one for each argument"))
    return module, given


def _read(path: Path, request: Request) -> Any:
    """What the checkpoint holds; nothing but tensors and plain values, unless it is trusted."""
    torch = need("torch", _INSTALL)
    if path.suffix == ".safetensors":
        return need("safetensors.torch", "safetensors").load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, by what the file is
        if not request.trust_pickle and "weights_only" in str(error):
            require_trust(request.source or str(path), trusted=False)
        if not request.trust_pickle:
            raise _unreadable(error, request) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code in it raises
        raise _unreadable(error, request) from error


def _unreadable(error: Exception, request: Request) -> ExportError:
    facts = {**request.facts, "found": f"{type(error).__name__}: {_first_line(error)}"}
    return ExportError(
        Problem("the checkpoint can't be read", facts, "save it again: torch.save, or safetensors")
    )


def _specs_of(module: Any, examples: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Inputs as the examples have them, called as the module's arguments are; the first axis is the batch."""
    names = list(inspect.signature(module.forward).parameters)
    return tuple(
        TensorSpec(name, str(one.dtype).removeprefix("torch."), (BATCH, *one.shape[1:]) if one.dim() else ())
        for name, one in zip(names, examples, strict=False)
    )


def _examples(specs: Sequence[TensorSpec]) -> tuple[Any, ...]:
    """Tensors of ones: valid where values are looked up in a table of two entries."""
    torch = need("torch", _INSTALL)
    opened = dict.fromkeys(dim for spec in specs for dim in spec.shape or () if isinstance(dim, str))
    sizes: dict[str, int] = {}
    for spec in specs:
        if spec.shape and isinstance(spec.shape[0], str):
            sizes[spec.shape[0]] = 2
    # No two alike: a size that is met twice may be taken for the same dimension.
    others = [name for name in opened if name not in sizes]
    sizes |= {name: _OPEN_SIZE + number for number, name in enumerate(others)}
    return tuple(
        torch.ones(
            [dim if isinstance(dim, int) else sizes[str(dim)] for dim in spec.shape or ()],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in specs
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""
