"""A file that a row names, read as a whole."""

from __future__ import annotations

import errno
import stat
from contextlib import closing
from pathlib import Path

from batchonnx.errors import BatchonnxError, InputError, Problem
from batchonnx.storage.paths import is_ranged, open_filesystem, open_input

NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
"""What a system says of a path that no file can have, or that leads nowhere."""


def read_whole(path: str) -> bytes | None:
    """A file's bytes; None if there is no such file. path: absolute, or a URL.

    A device or a pipe is no file: it might never end.

    Raises InputError where the file, or the store that it is in, can't be read; DependencyError for a
    scheme whose package isn't installed, StorageError for an unknown scheme.
    """
    try:
        if "://" not in path:
            return _read_local(path)
        if is_ranged(path):
            from batchonnx.storage.s3_input import open_s3

            opened = open_s3(path, 0)
            if opened is None:
                return None
            with closing(opened):
                return bytes(opened.read())
        return _read_url(path)
    except NOT_THERE:
        return None
    except BatchonnxError:
        raise
    except Exception as error:  # a store's own errors are of any class
        lines = str(error).splitlines() or [type(error).__name__]
        facts = {"path": path, "found": lines[0]}
        fix = "check the path, its permissions and the network, and run the same command again"
        raise InputError(Problem("a file that a row names can't be read", facts, fix)) from error


def _read_local(path: str) -> bytes | None:
    if "\0" in path:
        return None
    file = Path(path)
    try:
        return file.read_bytes() if stat.S_ISREG(file.stat().st_mode) else None
    except OSError as error:
        if error.errno in NO_NAME:
            return None
        raise


def _read_url(path: str) -> bytes:
    if path.startswith("file://"):
        with open_input(path) as file:
            return bytes(file.read())
    filesystem, inner = open_filesystem(path)
    return bytes(filesystem.handler.fs.cat_file(inner))
