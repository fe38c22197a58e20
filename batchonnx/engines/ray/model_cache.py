"""A model's bytes, once on each machine: a folder for each digest, made by whoever needs it first."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

KEPT = 4
"""Models whose bytes stay, the latest used of them, for jobs to come."""

Files = Mapping[str, Any]
"""Name, relative to the model's folder -> its bytes, as anything with a buffer. The model's own is MODEL."""

MODEL = "model.onnx"


def cache_folder() -> Path:
    """This user's, on this machine."""
    return Path(tempfile.gettempdir()) / f"batchonnx-models-{os.getuid()}"


def local_model(
    digest: str, fetch: Callable[[], Files], folder: Path | None = None, *, together: int = 1
) -> Path:
    """The path of a model with this digest; fetch: asked for its files by the first who comes.

    together: models of one job, none of which may push another out. The others wait for it. What is there
    isn't looked into: whoever opens the model compares the digest.
    Raises OSError.
    """
    home = folder or cache_folder()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise PermissionError(f"{home} is another user's")
    with (home / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = home / digest
        if not place.exists():
            _write(place, fetch())
        os.utime(place)
        _forget(home, max(KEPT, together))
    return place / MODEL


def drop(digest: str, folder: Path | None = None) -> None:
    """Remove a model whose bytes aren't what they should be."""
    shutil.rmtree((folder or cache_folder()) / digest, ignore_errors=True)


def _write(place: Path, files: Files) -> None:
    staged = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    try:
        for name, data in files.items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(memoryview(data))
        staged.rename(place)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _forget(home: Path, kept: int) -> None:
    """Remove those that weren't used for longest. A session that is open has read its file already."""
    places = [path for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for place in sorted(places, key=lambda path: path.stat().st_mtime)[:-kept]:
        shutil.rmtree(place, ignore_errors=True)
