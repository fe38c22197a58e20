"""Files that are whole or not there, after a power cut too."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import sys
from functools import cache
from pathlib import Path

_STAGED = re.compile(r"\..+\.[0-9a-f]{8}")
"""What `_stage` calls a file before it is whole."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, in place of any former one: a reader finds the old or the new, whole. Raises OSError."""
    staged = _stage(path, data)
    staged.replace(path)
    sync_folder(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file unless there is one; of several attempts at once, one is told True. Raises OSError."""
    staged = _stage(path, data)
    try:
        # Unlike a rename, a link refuses a name that is taken.
        os.link(staged, path)
    except FileExistsError:
        return False
    except OSError as error:
        # A file system without links: the lease alone keeps a second writer away.
        if error.errno not in _NO_LINKS or path.exists():
            raise
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def remove_staged(folder: Path) -> None:
    """Remove what a death has left of files that were being written here. Raises OSError."""
    for path in folder.iterdir():
        if _STAGED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Have a file's bytes on the disk. Raises OSError."""
    _sync(path, os.O_RDWR)


def sync_handle(handle: int) -> None:
    """Have an open file's bytes on the disk. Raises OSError."""
    os.fsync(handle)


def begin_sync(handle: int) -> None:
    """Have the disk begin to write an open file's bytes, so that a later sync has less to wait for.

    Where the system has no such call, nothing happens.
    """
    if sys.platform == "linux":
        whole, begin_writing = ctypes.c_int64(0), 2
        libc().sync_file_range(handle, whole, whole, begin_writing)


def sync_folder(path: Path) -> None:
    """Have a folder's names on the disk. Raises OSError."""
    _sync(path, os.O_RDONLY)


@cache
def libc() -> ctypes.CDLL:
    """The C library, for calls of the system that Python hasn't got; errors by `ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stage(path: Path, data: bytes) -> Path:
    """The bytes in a hidden file beside `path`, on the disk."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with staged.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged
