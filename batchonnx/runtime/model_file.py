"""A model's file and the files beside it that hold its weights: found, fetched, checked, hashed."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from batchonnx.errors import ModelFileError, Problem
from batchonnx.runtime.registry import fetch_registered, is_registered
from batchonnx.storage.paths import local_copy

# A key `location` of eight letters, as protobuf writes it: only a model with external data (or a
# node called so) has it, and parsing a model with `onnx` costs half a second.
_MARKER = b"\x08location"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model's bytes on this machine.

    path: as the user knows it. local: where its bytes are. head: its first bytes, at most 64.
    size: of this file alone; bytes: of the files beside it, too.
    digest: SHA-256 of the file followed by the files beside it, in the order of their names.
    external: names of those files, sorted.
    """

    path: str
    local: Path
    head: bytes
    size: int
    bytes: int
    digest: str
    external: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        """What every error about it begins with."""
        return {"model": self.path}


def find_model(path: str) -> ModelFile:
    """Bring a model to this machine, if it isn't there, and read what tells it from others.

    path: absolute or relative, a URL, or models:/name/version of an MLflow registry. Reads each byte once, a
    megabyte at a time.
    Raises ModelFileError for a file that is missing or can't be read, and for external data that is
    missing, cut short, a Git-LFS pointer or outside the model's folder. The file itself may still be
    no model at all.
    """
    local = _found(path)
    digest = hashlib.sha256()
    try:
        head, size, may_have_external = _hash_model(local, digest)
        needed = _external(local) if may_have_external else {}
        total = size
        for name in sorted(needed):
            total += _hash_weights(path, local, name, needed[name], digest)
    except OSError as error:
        facts = {"model": path, "found": str(error)}
        fix = "check the path and its permissions"
        raise ModelFileError(Problem("the model can't be read", facts, fix)) from error
    return ModelFile(path, local, head, size, total, digest.hexdigest(), tuple(sorted(needed)))


def _found(path: str) -> Path:
    if is_registered(path):
        return fetch_registered(path)
    return local_copy(path, ModelFileError, "the model")


def _hash_model(local: Path, digest: Any) -> tuple[bytes, int, bool]:
    """Its first bytes, its size, and whether it may have external data."""
    head, tail, size, is_marked = b"", b"", 0, False
    with local.open("rb") as file:
        while block := file.read(_BLOCK):
            head = head or block[:64]
            size += len(block)
            digest.update(block)
            # Across two blocks, too; joining them as a whole took as long as hashing them.
            is_marked = is_marked or _MARKER in block or _MARKER in tail + block[: len(_MARKER)]
            tail = block[-len(_MARKER) :]
    return head, size, is_marked


def _external(local: Path) -> dict[str, int]:
    """File name -> bytes that the model reads of it."""
    from batchonnx.runtime.graph import all_tensors, parse_model

    model = parse_model(local)
    needed: dict[str, int] = {}
    for tensor in all_tensors(model) if model else ():
        if tensor.data_location == tensor.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            end = sum(int(n) for key in ("offset", "length") if (n := entries.get(key, "")).isdecimal())
            name = entries.get("location", "")
            needed[name] = max(end, needed.get(name, 0))
    return needed


def _hash_weights(path: str, local: Path, name: str, needed: int, digest: Any) -> int:
    """Size of one file of weights, whose bytes are added to the digest."""
    facts = {"model": path}
    inside = os.path.normpath(name)
    if not name or Path(name).is_absolute() or inside.startswith(".."):
        fix = "save the model again with its data beside it"
        raise ModelFileError(Problem(f'the model names weights outside its folder: "{name}"', facts, fix))
    weights = local.parent / inside
    if "://" in path:
        _fetch(path, name, weights)
    if not weights.is_file():
        facts["looked in"] = str(local.parent)
        fix = f"copy {name} beside the model; it holds the weights"
        raise ModelFileError(Problem(f'the model\'s weights are missing: "{name}"', facts, fix))
    size, head = 0, b""
    with weights.open("rb") as file:
        while block := file.read(_BLOCK):
            head = head or block[:64]
            size += len(block)
            digest.update(block)
    facts["weights"] = f"{weights}, {size:,} bytes"
    if head.startswith(b"version https://git-lfs"):
        title = f'the model\'s weights are a Git-LFS pointer: "{name}"'
        raise ModelFileError(Problem(title, facts, "fetch them: git lfs pull"))
    if size < needed:
        facts["expected"] = f"{needed:,} bytes or more"
        fix = "copy the weights again; they may also be another model's"
        raise ModelFileError(Problem(f'the model\'s weights are cut short: "{name}"', facts, fix))
    return size


def _fetch(path: str, name: str, target: Path) -> None:
    """Bring weights beside the model's temporary copy."""
    beside = path.rpartition("/")[0] + "/" + str(PurePosixPath(name))
    copy = local_copy(beside, ModelFileError, f'the file with the model\'s weights, "{name}",')
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(copy, target)
