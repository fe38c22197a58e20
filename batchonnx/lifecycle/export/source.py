"""What kind of thing is to be exported, told by its first bytes rather than by its name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from batchonnx.errors import ExportError, Problem
from batchonnx.storage.paths import local_copy

Kind = Literal[
    "factory", "program", "checkpoint", "folder", "hub", "lightgbm", "xgboost", "catboost", "pickle"
]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def kind_of(source: str) -> tuple[Kind, Path]:
    """What the source is, and where it lies on this machine; a hub's id is no place here.

    Raises ExportError for what no exporter takes, or if there is nothing.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return "folder", path
        raise _unknown(source, "a folder without config.json")
    if "://" not in source and not path.exists() and _HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return "hub", path
    local = local_copy(source if "://" in source else str(path), ExportError, "the model to export")
    with local.open("rb") as file:
        head = file.read(64)
    return _kind(source, local, head), local


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 and bytes of a file; of a folder: of its files' paths and contents, without hidden ones."""
    files = [path] if path.is_file() else sorted(_visible(path))
    digest, size = hashlib.sha256(), 0
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
                size += len(block)
    return digest.hexdigest(), size


def _visible(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _kind(source: str, local: Path, head: bytes) -> Kind:
    suffix = local.suffix.lower()
    if head.startswith(b"version https://git-lfs"):
        raise ExportError(
            Problem("the model is a Git-LFS pointer", {"source": source}, "fetch it: git lfs pull")
        )
    if suffix == ".pt2":
        return "program"
    if suffix in _CHECKPOINTS:
        return "checkpoint"
    if head.startswith(b"tree\n"):
        return "lightgbm"
    if head.startswith(b"CBM1"):
        return "catboost"
    if re.match(rb'\{L.{7}\x07learner|\{"learner"', head, re.DOTALL) or (
        head.startswith(b"{") and suffix in (".json", ".ubj")
    ):
        return "xgboost"
    # Protocol 2 and above; joblib's compressed files begin as zlib, gzip, bz2 or xz do.
    if head.startswith(b"\x80") or suffix in (".pkl", ".pickle", ".joblib"):
        return "pickle"
    raise _unknown(source, f"a file that begins with {head[:16]!r}" if head else "an empty file")


def _unknown(source: str, found: str) -> ExportError:
    facts = {
        "source": source,
        "found": found,
        "expected": f"a checkpoint ({', '.join(_CHECKPOINTS)}), an exported program (.pt2), a Hugging Face "
        "folder, a model of LightGBM, XGBoost or CatBoost, a pickle",
    }
    return ExportError(
        Problem("no exporter takes this", facts, "name one of those expected, or a factory: --from")
    )
