"""A job file that runs, guessed from a model's signature and the data's schema."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.types as pat
import yaml

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Section
from batchonnx.job.spec.source import REGISTRY
from batchonnx.planning.bindings import TOKEN_INPUTS
from batchonnx.planning.listing import Listing, list_input
from batchonnx.planning.match import KEY_NAMES, Match, match_input
from batchonnx.planning.models import link, may_feed
from batchonnx.planning.pretrained import Known, known_of
from batchonnx.planning.types import column_shape
from batchonnx.runtime.session import Model, open_model
from batchonnx.runtime.signature import ModelSignature, TensorSpec, output_key


def guess_job(
    model: ModelSignature,
    data: str,
    output: str | None,
    folder: Path,
    beside: Path | None = None,
) -> str:
    """The text of a job file; every guess that isn't certain says so in a comment.

    model: with paths as the user knows them; of a chain, see `guess_chain`. folder: where the file will be
    kept; relative paths are written to count from there. beside: where lies what came with the model, a
    tokenizer say; None: in the model's own folder.
    Raises InputError for unreadable data, ContractError where an input matches no columns.
    """
    listing = list_input([data if "://" in data else str(Path(data).absolute())], _format(data))
    known = _known(model, folder, beside)
    matches = {
        spec.name: (known and known.feature(spec, listing.schema)) or match_input(spec, model, listing.schema)
        for spec in model.inputs
    }
    if any(match is not None and match.feature.tokenizer is not None for match in matches.values()):
        # Its tokenizer feeds them, too.
        matches = {name: match for name, match in matches.items() if name not in TOKEN_INPUTS}
    missing = [spec for spec in model.inputs if matches.get(spec.name, True) is None]
    if missing:
        raise ContractError(*(_unmatched(spec, listing) for spec in missing))
    name = f"score-{Path(data.rstrip('/*')).stem.strip('*.') or 'rows'}"
    lines = [
        f"name: {_yaml(name)}",
        *_models(model, folder),
        "input:",
        f"  path: {_yaml(_relative(data, folder))}",
    ]
    if listing.format == "files":
        lines.append("  format: files             # a row for every file: path, size, bytes")
    lines.append("features:")
    fed: set[str] = set()
    for spec in model.inputs:
        match = matches.get(spec.name)
        if match is None:
            continue
        lines += _feature(spec, match)
        fed.update(match.feature.columns or [match.feature.column or ""])
    outputs = known.outputs if known is not None else {}
    lines.append("outputs:")
    lines += [f"  {_yaml(n)}: {_flow(one)}" for n, one in outputs.items()] if outputs else _outputs(model)
    keep = _keep(listing, fed, {spec.name for spec in model.outputs} | set(outputs))
    lines.append(f"keep: [{', '.join(map(_yaml, keep))}]    # input columns to carry along")
    lines += [
        "output:",
        f"  path: {_yaml(output or f'predictions/{name}')}",
        "  overwrite: false          # true: a new result replaces the former one",
    ]
    return "\n".join(lines) + "\n"


def guess_chain(paths: Sequence[str]) -> ModelSignature:
    """Models that may feed each other, in this order, as one. Raises ModelFileError, ContractError."""
    models: dict[str, Model] = {}
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(path).stem)
        name = stem if re.match("[A-Za-z_]", stem) else f"model_{stem}"
        models[name if name not in models else f"{name}_{len(models) + 1}"] = open_model(path)
    return link(models, _links({name: model.signature for name, model in models.items()})).signature


def _links(models: Mapping[str, ModelSignature]) -> dict[str, dict[str, str]]:
    """Inputs that a model before seems to be for: it has an output of that name, or the only fit."""
    links: dict[str, dict[str, str]] = {}
    before: dict[str, tuple[str, TensorSpec]] = {}
    for name, model in models.items():
        links[name] = {}
        for spec in model.inputs:
            fits = {key: told for key, (told, found) in before.items() if may_feed(found, spec)}
            same = [key for key, told in fits.items() if told == spec.name]
            found = same[-1:] or (list(fits) if len(fits) == 1 and len(model.inputs) == 1 else [])
            if found:
                links[name][spec.name] = found[0]
        before |= {output_key(name, spec.name): (spec.name, spec) for spec in model.outputs}
    return links


def _models(model: ModelSignature, folder: Path) -> Iterator[str]:
    """The models' section; of a chain, with what each takes of those before."""
    if not model.members:
        yield "model:"
        yield f"  path: {_yaml(_relative(model.path, folder))}"
        return
    outputs = {spec.name for spec in model.outputs}
    yield "models:                      # run in this order on each row"
    for member in model.members:
        yield f"  {_yaml(member.name)}:"
        yield f"    path: {_yaml(_relative(member.model.path, folder))}"
        links = {name: source for name, source in member.sources.items() if source in outputs}
        if links:
            yield f"    inputs: {_yaml(links, flow=True)}    # a guess: check it"


def _known(model: ModelSignature, folder: Path, beside: Path | None) -> Known | None:
    if model.members or "://" in model.path or model.path.startswith(REGISTRY):
        return None
    home = Path(model.path).absolute().parent
    outputs = [spec.name for spec in model.outputs]
    return known_of(beside or home, outputs, lambda name: _relative(str(home / name), folder))


def _format(data: str) -> str | None:
    """A folder without a single table in it is a folder of files."""
    path = Path(data)
    if not path.is_dir():
        return None
    from batchonnx.formats.registry import format_of

    for _, folders, names in os.walk(path):
        folders[:] = [folder for folder in folders if not folder.startswith((".", "_"))]
        shown = [name for name in names if not name.startswith((".", "_"))]
        if shown:
            return None if any(format_of(name) for name in shown) and all(map(format_of, shown)) else "files"
    return None


def _relative(path: str, folder: Path) -> str:
    return path if "://" in path or path.startswith(REGISTRY) else os.path.relpath(path, folder)


def _feature(spec: TensorSpec, match: Match) -> Iterator[str]:
    sure = "" if match.sure else "    # a guess: check it"
    yield f"  # {spec}: {match.reason}{sure and '; a guess, check it'}"
    yield f"  {_yaml(spec.name)}: {_flow(match.feature)}"


def _flow(section: Section) -> str:
    return _yaml(section.model_dump(by_alias=True, exclude_defaults=True), flow=True)


def _outputs(model: ModelSignature) -> Iterator[str]:
    taken = {source for member in model.members for source in member.sources.values()}
    written = [spec for spec in model.outputs if spec.kind != "other" and spec.name not in taken]
    for spec in written:
        yield f"  {_yaml(spec.name)}: {{from: {_yaml(spec.name)}}}"
        width = spec.shape[-1] if spec.kind == "tensor" and spec.shape and len(spec.shape) == 2 else None
        if spec.dtype.startswith("float") and (spec.kind == "maps" or (isinstance(width, int) and width > 1)):
            hint = f"{{from: {_yaml(spec.name)}, argmax: true}}"
            yield f"  # best: {hint}    # or softmax, index, top_k, threshold, labels: names.txt"


def _keep(listing: Listing, fed: set[str], predicted: set[str]) -> Sequence[str]:
    """Columns that look like keys: named like one, unused by the model, scalars that aren't floats."""

    def is_key(name: str) -> bool:
        arrow_type = listing.schema.field(name).type
        words = name.lower().replace("-", "_").split("_")
        is_plain = not column_shape(arrow_type).shape and not pat.is_floating(arrow_type)
        return is_plain and any(word in KEY_NAMES for word in words)

    return [n for n in listing.schema.names if n not in fed and n not in predicted and is_key(n)]


def _unmatched(spec: TensorSpec, listing: Listing) -> Problem:
    columns = [f"{field.name} {field.type}" for field in listing.schema]
    shown = ", ".join(columns[:12]) + (f" … ({len(columns)} columns)" if len(columns) > 12 else "")
    fix = "write the feature by hand, or make the tensor in a function of yours: python: module:function"
    return Problem(f'no columns match model input "{spec.name}"', {"model": str(spec), "columns": shown}, fix)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that YAML 1.2 takes for a number, as well as around what YAML 1.1 does."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+$"), ["0"])
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$"), list("+-.0123456789")
)


def _yaml(value: object, flow: bool = False) -> str:
    """One value on one line, quoted where YAML needs it."""
    text = yaml.dump(
        value if flow else [value],
        Dumper=_Dumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    ).strip()
    return text if flow else text[1:-1]
