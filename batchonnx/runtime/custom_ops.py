"""Libraries of custom operators: found, told from others, registered with every session.

Such a library runs any code of its own, so none is loaded that a job doesn't name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchonnx.errors import DependencyError, Problem
from batchonnx.job.spec.session import EXTENSIONS
from batchonnx.runtime.signature import OpLibrary

_INSTALL = "pip install 'batchonnx[extensions]'"


def find_libraries(names: Sequence[str], known: Mapping[str, str] | None = None) -> tuple[OpLibrary, ...]:
    """What is there under these names. names: absolute paths, or EXTENSIONS. known: facts for errors.

    Raises DependencyError for the first that isn't there or can't be read.
    """
    return tuple(OpLibrary(name, _digest(_file(name, known or {}), known or {})) for name in names)


def register(options: Any, libraries: Sequence[OpLibrary]) -> None:
    """Have the sessions that are made with these options know the libraries' operators.

    Raises DependencyError where a library isn't there, is another than was found before, or can't be loaded.
    """
    for library in libraries:
        file = _file(library.name, {})
        facts = {"library": str(file)}
        found = _digest(file, {})
        if found != library.digest:
            facts |= {"expected": f"sha256 {library.digest}", "found": f"sha256 {found}"}
            fix = "install the same version on every machine, and run the job again"
            raise DependencyError(Problem("a custom-op library isn't the one the job began with", facts, fix))
        try:
            options.register_custom_ops_library(str(file))
        except Exception as error:
            # ONNX Runtime's classes derive from Exception and live in a private module.
            facts["found"] = str(error).rpartition(" with error: ")[2]
            fix = "build it for this machine and this ONNX Runtime; it has to export RegisterCustomOps"
            raise DependencyError(Problem("a custom-op library can't be loaded", facts, fix)) from error


def _file(name: str, known: Mapping[str, str]) -> Path:
    """Where a library lies on this machine; of EXTENSIONS, the one in its package."""
    if name != EXTENSIONS:
        return Path(name)
    try:
        from onnxruntime_extensions import get_library_path
    except ImportError as error:
        facts = {**known, "found": str(error)}
        raise DependencyError(Problem(f"{EXTENSIONS} isn't installed here", facts, _INSTALL)) from error
    return Path(get_library_path())


def _digest(file: Path, known: Mapping[str, str]) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        facts = {**known, "library": str(file), "found": error.strerror or str(error)}
        fix = f"correct the path; every machine that scores needs the file there. Or name {EXTENSIONS}"
        raise DependencyError(Problem("a custom-op library isn't there", facts, fix)) from error
