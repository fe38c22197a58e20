"""A file as a listing tells of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileEntry:
    """A file that was found. version: etag, or mtime in ns; another one means another file."""

    path: str
    size: int
    version: str
