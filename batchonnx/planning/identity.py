"""What decides a result's bytes, by name: runs of one identity give one result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchonnx.job.spec import RAY_ONLY, JobFile
from batchonnx.planning.bindings import (
    AudioColumn,
    FeatureBinding,
    HookFeature,
    ImageColumn,
    OutputBinding,
    TextColumn,
)
from batchonnx.planning.hooks import hook_sources, load_hook
from batchonnx.planning.listing import Listing, SourceFile
from batchonnx.runtime.device import Device
from batchonnx.runtime.signature import ModelSignature
from batchonnx.runtime.wheels import WHEELS

Identity = Mapping[str, str]
"""Name of something that matters -> its value or digest, both to be shown."""

LIBRARIES = (*WHEELS, "pyarrow")
_DECODERS: Mapping[type, tuple[str, ...]] = {
    ImageColumn: ("pillow",),
    AudioColumn: ("soundfile", "soxr"),
    TextColumn: ("tokenizers",),
}
"""Kind of feature -> the packages that decode it: another version may give other values."""
_IRRELEVANT: Mapping[str, Any] = {
    "name": True,
    "model": True,  # its digest counts, not where it lies
    "models": {"__all__": {"path", "sha256"}},
    "input": {"path", "table", "version"},  # the files that were found there count
    "output": {"path", "table", "overwrite", "single_writer"},
    "engine": {"name", "device", "provider_options", "fallback", "workers", "hook_processes", *RAY_ONLY},
    "session": {"custom_ops"},  # their digests count, not where they lie
    "storage": True,  # another way to the same files
    "errors": True,  # a bad row changes no other
    "schedule": True,  # when a job runs changes nothing of what comes out
    "metrics": True,  # whoever watches changes nothing
    "notify": True,
    "gate": True,  # it says whether parts are published, not what is in them
}


def make_identity(
    job: JobFile,
    model: ModelSignature,
    listing: Listing,
    features: tuple[FeatureBinding, ...],
    outputs: tuple[OutputBinding, ...],
    device: Device,
) -> Identity:
    """Everything that parts depend on; what only says where, when or by whom is left out."""
    settings = job.job.model_dump(
        mode="json", by_alias=True, exclude=dict(_IRRELEVANT), exclude_defaults=True
    )
    identity = {"model": f"sha256 {model.digest}"}
    identity |= {f"model {member.name}": f"sha256 {member.model.digest}" for member in model.members}
    libraries = sorted({library.digest for one in model.files for library in one.libraries})
    identity |= {f"custom ops {number}": f"sha256 {digest}" for number, digest in enumerate(libraries, 1)}
    identity |= dict(_flat("", settings))
    identity["columns"] = ", ".join([*job.job.keep, *(binding.name for binding in outputs)])
    for binding in outputs:
        if binding.labels is not None:
            identity[f"labels of {binding.name}"] = _digest(json.dumps(binding.labels).encode())
        if binding.detection is not None and binding.detection.in_image:
            identity[f"boxes of {binding.name}"] = "in pixels of the image"
    references = {f.function for f in features if isinstance(f, HookFeature)}
    for reference in sorted(references | {b.function for b in outputs if b.function is not None}):
        identity[f"hook {reference}"] = _code_digest(reference, job)
    for feature in features:
        if isinstance(feature, ImageColumn):
            identity[f"images of {feature.input.name}"] = json.dumps(dataclasses.asdict(feature.pixels))
        if isinstance(feature, TextColumn):
            identity[f"tokenizer of {feature.inputs[0].name}"] = _tokenizer(feature)
    decoders = {name for feature in features for name in _DECODERS.get(type(feature), ())}
    if not device.is_cpu:
        identity["device"] = json.dumps([_provider(device), dict(sorted(device.options.items()))])
    for library in (*LIBRARIES, *sorted(decoders)):
        try:
            identity[library] = version(library)
        except PackageNotFoundError:
            continue
    if listing.version is not None:
        identity[input_name("table")] = f"version {listing.version}"
    return identity | {input_name(file.path): describe_file(file) for file in listing.files}


def input_name(path: str) -> str:
    """An input file's name in an identity."""
    return f"input {path}"


def fingerprint(identity: Identity) -> str:
    """SHA-256 over an identity."""
    return _digest(json.dumps(dict(identity), sort_keys=True).encode())


def differences(old: Identity, new: Identity) -> Iterator[tuple[str, str, str]]:
    """Name, old and new value of whatever differs, in the order of the names."""
    for name in sorted({*old, *new}):
        before, now = old.get(name, "absent"), new.get(name, "absent")
        if before != now:
            yield name, before, now


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, json.dumps(value)


def describe_file(file: SourceFile) -> str:
    """What tells an input file from a changed one."""
    rows = file.footer.rows
    told = f"{rows} rows in {len(file.footer.row_groups)} row groups" if rows is not None else "rows untold"
    return f"{file.size} bytes, version {file.version}, {told}"


def _provider(device: Device) -> str:
    """By its name; a plugin by what is in its library, wherever that lies."""
    if device.library is None:
        return device.provider
    library = Path(device.library)
    return f"{library.name} sha256 {_digest(library.read_bytes())}" if library.is_file() else library.name


def _tokenizer(feature: TextColumn) -> str:
    cut = f"{feature.max_length} tokens{' from the left' * feature.from_left}"
    return f"sha256 {_digest(feature.tokenizer)}, {cut}, padded with {feature.pad_id}"


def _code_digest(reference: str, job: JobFile) -> str:
    """Of whole files, since a function's own lines say nothing of what it calls beside it."""
    sources = hook_sources(load_hook(reference, job.folder, reference), reference, job.folder)
    digests = sorted((source.name, _digest(source.read_bytes())) for source in sources)
    if len(digests) < 2:
        return digests[0][1] if digests else "built in"
    return _digest(json.dumps(digests).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
