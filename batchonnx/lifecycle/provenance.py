"""Where a model came from: each step that made it, in the model's own metadata and in a file beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchonnx.errors import Problem, StorageError
from batchonnx.runtime.graph import parse_model
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.signature import ModelSignature

KEY = "batchonnx.origin"
"""In the ONNX metadata: the steps as JSON, the oldest first."""

SUFFIX = ".origin.json"


@dataclass(frozen=True)
class Step:
    """One thing that was done to make a model.

    step: "export", "optimize", "quantize", "convert". source: the name of what it was made of;
    source_sha256: its digest, external data included; None where it has none (a factory, an object in
    memory).
    options: what was asked for. tools: package -> version. verdict: of the comparison with the source.
    """

    step: str
    source: str
    source_sha256: str | None
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    verdict: str | None


def tool_versions(*packages: str) -> dict[str, str]:
    """Package -> version, for those that are installed; batchonnx is always among them."""
    found = {}
    for package in ("batchonnx", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def record_step(path: Path, source: ModelSignature | None, step: Step) -> tuple[Step, ...]:
    """Write into a model, and beside it, what it was made by; the steps of its source come first.

    path: an ONNX file, whose metadata is changed, and so its digest; or one in ONNX Runtime's own format,
    which is left as it is. source: the model it was made of; None for an export.
    Gives all steps. Raises StorageError where the folder can't be written.
    """
    chain = (*(steps_of(source) if source is not None else ()), step)
    told = [asdict(one) for one in chain]
    model = parse_model(path)
    try:
        if model is not None:
            kept = [entry for entry in model.metadata_props if entry.key != KEY]
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            model.metadata_props.add(key=KEY, value=json.dumps(told, sort_keys=True, ensure_ascii=False))
            _replace(path, model.SerializeToString())
        record = {"model": path.name, "sha256": find_model(str(path)).digest, "steps": told}
        _replace(_beside(path), json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        facts = {"file": str(path), "found": error.strerror or str(error)}
        fix = "write to another folder"
        raise StorageError(Problem("where the model came from can't be written down", facts, fix)) from error
    return chain


def steps_of(model: ModelSignature) -> tuple[Step, ...]:
    """The steps that made a model, the oldest first; empty where nobody has written them down.

    Told by the file beside it, if that is about this very model, else by the metadata.
    """
    beside = _beside(Path(model.path))
    if "://" not in model.path and beside.is_file():
        record = _parsed(beside.read_bytes())
        if isinstance(record, dict) and record.get("sha256") == model.digest:
            return _steps(record.get("steps"))
    return _steps(_parsed(model.metadata.get(KEY, "[]")))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _replace(path: Path, data: bytes) -> None:
    """All or nothing: a model is never half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parsed(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:  # somebody else's text under our name tells nothing
        return None


def _steps(told: object) -> tuple[Step, ...]:
    """Steps as read from a file that anybody may have written: what has another shape is left out."""
    if not isinstance(told, Sequence) or isinstance(told, str):
        return ()
    names = [field.name for field in fields(Step)]
    empty = Step("", "", None, {}, {}, None)
    found = []
    for one in told:
        if isinstance(one, dict) and isinstance(one.get("step"), str):
            known = {name: one[name] for name in names if _fits(name, one.get(name))}
            found.append(replace(empty, **known))
    return tuple(found)


def _fits(name: str, value: object) -> bool:
    return isinstance(value, dict) if name in ("options", "tools") else isinstance(value, str)
