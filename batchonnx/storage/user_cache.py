"""Where this machine's user keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Below $XDG_CACHE_HOME, else ~/.cache; it may not be there yet. Raises RuntimeError without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "batchonnx"
