"""Columns of encoded images and sounds: as bytes, as struct{bytes, path}, or as paths."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import ContractError, DependencyError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.planning.bindings import Encoded
from batchonnx.planning.types import is_binary, is_text
from batchonnx.storage.paths import is_ranged, open_filesystem

FLOATS = ("float16", "float32", "float64")
"""Model inputs whose values are scaled."""


def encoded_as(arrow_type: pa.DataType, column: str, where: str) -> Encoded:
    """What the column holds. where: the place in the job file. Raises ContractError for anything else."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        arrow_type = arrow_type.storage_type
    if pat.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if is_binary(arrow_type):
        return "bytes"
    if is_text(arrow_type):
        return "paths"
    if pat.is_struct(arrow_type):
        members = {field.name: field.type for field in arrow_type}
        has_bytes = "bytes" in members and is_binary(members["bytes"])
        if has_bytes and ("path" not in members or is_text(members["path"])):
            return "struct"
    facts = {
        "job": where,
        "expected": "bytes, struct<bytes, path>, or text that holds paths or URLs",
        "found": f"column {column} {arrow_type}",
    }
    raise ContractError(
        Problem(f'column "{column}" holds no encoded files', facts, "name the column that holds them")
    )


def folder_of(asked: str | None, job: JobFile, where: str) -> str:
    """Where relative paths of a column count from: absolute, or a URL. where: the key, in the job file.

    Raises ContractError for a folder of this machine that isn't there; DependencyError, StorageError for the
    scheme of a URL.
    """
    if asked is None:
        return str(job.folder).rstrip("/")
    folder = job.resolve(asked)
    if "://" in folder:
        if not is_ranged(folder):
            open_filesystem(folder)
    elif not Path(folder).is_dir():
        facts = {"job": job.where(where), "folder": folder}
        raise ContractError(
            Problem("the folder that paths count from isn't there", facts, "correct the path")
        )
    return folder.rstrip("/")


def require(module: str, extra: str, where: str) -> None:
    """Import what decodes. Raises DependencyError with the remedy if it isn't installed."""
    try:
        __import__(module)
    except ImportError as error:
        facts = {"job": where, "found": str(error)}
        fix = f"pip install 'batchonnx[{extra}]'"
        raise DependencyError(
            Problem(f"{extra}s are decoded by a package that isn't here", facts, fix)
        ) from error
