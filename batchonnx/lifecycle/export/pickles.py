"""Pickles: whoever opens one runs the code in it, so nobody's is opened without being asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchonnx.errors import ExportError, Problem
from batchonnx.lifecycle.export.packages import need


def load_pickle(path: Path, source: str, trusted: bool) -> Any:
    """The object in a pickle, joblib's included. Raises ExportError unless it is trusted and whole."""
    require_trust(source, trusted)
    joblib = need("joblib", "joblib")
    try:
        return joblib.load(path)
    except ImportError as error:
        facts = {"source": source, "found": str(error)}
        fix = f"install the package that has {error.name or 'it'}, at the version it was pickled with"
        raise ExportError(
            Problem("the pickle holds something of a package that isn't here", facts, fix)
        ) from error
    except Exception as error:  # whatever the code in it raises
        facts = {"source": source, "found": f"{type(error).__name__}: {error}"}
        fix = "write it again, with the versions that are installed here"
        raise ExportError(Problem("the pickle can't be opened", facts, fix)) from error


def require_trust(source: str, trusted: bool) -> None:
    """Raises ExportError if opening a pickle wasn't allowed."""
    if not trusted:
        fix = "add --trust-pickle if you made it yourself; native files and factories (--from) need no trust"
        raise ExportError(Problem("a pickle runs the code that it holds", {"source": source}, fix))
