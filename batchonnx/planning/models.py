"""The models of a job: opened, and where there are several, bound to each other as one chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.runtime.chain import chain
from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.session import Model, open_model
from batchonnx.runtime.signature import Dim, Member, ModelSignature, TensorSpec, output_key

Links = Mapping[str, Mapping[str, str]]
"""Model -> its input -> where that comes from, if it isn't the feature of the input's own name."""

Where = Callable[[str], str]


def open_models(job: JobFile, device: Device = CPU) -> Model:
    """The job's model on one thread; of several, the chain of them, which is one model to whoever runs it.

    Raises ModelFileError, DependencyError, DeviceError, and ContractError for a model that can't feed on the
    others.
    """
    if job.job.model is not None:
        return open_model(job.resolve(job.job.model.path), sha256=job.job.model.sha256, device=device)
    models = {
        name: open_model(job.resolve(asked.path), sha256=asked.sha256, device=device)
        for name, asked in job.job.models.items()
    }
    return link(models, {name: asked.inputs for name, asked in job.job.models.items()}, job.where)


def link(models: Mapping[str, Model], links: Links, where: Where = str) -> Model:
    """The chain of these models, in their order. where: a key's place in the job file, for errors.

    Raises ContractError with every mismatch.
    """
    bound = bind_chain({name: model.signature for name, model in models.items()}, links, where)
    return chain(bound.members, tuple(bound.inputs.values()), list(models.values()))


@dataclass
class BoundChain:
    """Models bound to each other. inputs: of the chain, by name."""

    members: list[Member] = field(default_factory=list)
    inputs: dict[str, TensorSpec] = field(default_factory=dict)


def bind_chain(signatures: Mapping[str, ModelSignature], links: Links, where: Where) -> BoundChain:
    """Say where each input of each model comes from. Raises ContractError with every mismatch."""
    bound = BoundChain()
    outputs: dict[str, TensorSpec] = {}
    problems: list[Problem] = []
    for name, signature in signatures.items():
        asked = links[name]
        problems += _unknown(name, asked, signature, where)
        sources = {spec.name: asked.get(spec.name, spec.name) for spec in signature.inputs}
        for spec in signature.inputs:
            source = sources[spec.name]
            place = where(f"models.{name}.inputs.{spec.name}")
            if spec.name in asked and source.partition(".")[0] in signatures:
                problems += _misfits(spec, source, outputs, place)
            else:
                problems += _share(spec, source, bound.inputs, place)
        bound.members.append(Member(name, signature, sources))
        outputs |= {output_key(name, spec.name): spec for spec in signature.outputs}
    if problems:
        raise ContractError(*problems)
    return bound


def may_feed(output: TensorSpec, spec: TensorSpec) -> bool:
    """Whether an output has the type, and may have the shape, of an input."""
    return _same_type(output, spec) and _merged(spec.shape, output.shape, rows=False) is not None


def _same_type(output: TensorSpec, spec: TensorSpec) -> bool:
    return output.kind == spec.kind == "tensor" and output.dtype == spec.dtype


def fixed_links(model: ModelSignature) -> dict[str, int]:
    """`MODEL.INPUT` -> the number of rows that it takes in each call, of inputs that other models feed.

    Only where the model before leaves the number open: else it is that one's, or no number of rows at all.
    """
    fed_by = {spec.name: spec for spec in model.outputs}
    sizes = {}
    for member in model.members:
        for spec in member.model.inputs:
            source = fed_by.get(member.sources[spec.name])
            if source is None or not spec.shape or not isinstance(size := spec.shape[0], int):
                continue
            if not source.shape or not isinstance(source.shape[0], int):
                sizes[output_key(member.name, spec.name)] = size
    return sizes


def _unknown(
    name: str, asked: Mapping[str, str], signature: ModelSignature, where: Where
) -> Iterator[Problem]:
    known = [spec.name for spec in signature.inputs]
    for given in asked:
        if given not in known:
            near = get_close_matches(given, known, 1)
            facts = {"job": where(f"models.{name}.inputs.{given}")}
            facts["model"] = ", ".join(map(str, signature.inputs)) or "no inputs"
            fix = f'did you mean "{near[0]}"?' if near else "name one of the model's inputs"
            yield Problem(f'the model "{name}" has no input "{given}"', facts, fix)


def _misfits(
    spec: TensorSpec, source: str, outputs: Mapping[str, TensorSpec], place: str
) -> Iterator[Problem]:
    """What keeps an output of a model before from being this input."""
    facts = {"job": place, "model": str(spec)}
    found = outputs.get(source)
    if found is None:
        near = get_close_matches(source, outputs, 1)
        facts["expected"] = ", ".join(outputs) or "an output of a model before: there is none"
        fix = f'did you mean "{near[0]}"?' if near else "name an output of a model that stands further up"
        yield Problem(f'no model before has an output "{source}"', facts, fix)
        return
    facts["found"] = str(replace(found, name=source))
    if not _same_type(found, spec):
        fix = f"export one of them again, so that both are {spec.dtype}"
        yield Problem(f'"{source}" can\'t be fed to "{spec.name}": it has another type', facts, fix)
    elif _merged(spec.shape, found.shape, rows=False) is None:
        fix = "take the output that the model was trained on"
        yield Problem(f'"{source}" can\'t be fed to "{spec.name}": it has another shape', facts, fix)


def _share(spec: TensorSpec, name: str, inputs: dict[str, TensorSpec], place: str) -> Iterator[Problem]:
    """Make an input the chain's own, which another model may have as well."""
    other = inputs.get(name)
    if other is None:
        inputs[name] = replace(spec, name=name)
        return
    merged = _merged(spec.shape, other.shape, rows=True)
    if spec.dtype != other.dtype or spec.kind != other.kind or merged is None:
        facts = {"job": place, "model": str(spec), "found": str(other)}
        fix = f"give one of them a name of its own in features: inputs: {{{spec.name}: {name}_2}}"
        yield Problem(f'two models have an input "{name}", which can\'t be one', facts, fix)
        return
    known = spec.shape if other.shape is None else other.shape if spec.shape is None else merged
    inputs[name] = replace(other, shape=known)


def _merged(
    one: tuple[Dim, ...] | None, other: tuple[Dim, ...] | None, *, rows: bool
) -> tuple[Dim, ...] | None:
    """The narrower of two shapes, which may be equal; None where no array has both.

    rows: the first axis is held against the other's as well; exporters get an output's wrong.
    """
    if one is None or other is None:
        return ()
    if len(one) != len(other):
        return None
    pairs = list(zip(one, other, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs[0 if rows else 1 :]):
        return None
    return tuple(a if isinstance(a, int) else b for a, b in pairs)
