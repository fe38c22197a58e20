"""A file of an attempt on a local disk, hashed and on its way to the disk while it is written."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from batchonnx.ledger.durable import begin_sync, sync_handle
from batchonnx.ledger.records import StoredFile

SYNC_BYTES = 1 << 20
"""The disk begins to write when so much has come: the sync at the end of 4 MB took 4.3 ms, and takes 1.1."""


class StagedFile(io.RawIOBase):
    """What is written to `file`, its size and its digest; see `output.Staged`.

    path: where it lies. name: what it will be called in the result.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Raises OSError."""
        self._path, self._name = path, name
        self._handle: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._digest = hashlib.sha256()
        self._size = self._begun = 0

    @property
    def sink(self) -> BinaryIO:
        """Takes what a format's writer gives."""
        return self  # type: ignore[return-value]

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Raises OSError."""
        assert self._handle is not None
        view = memoryview(data).cast("B")
        left = view
        while left:
            left = left[os.write(self._handle, left) :]
        self._digest.update(view)
        self._size += len(view)
        if self._size - self._begun >= SYNC_BYTES:
            begin_sync(self._handle)
            self._begun = self._size
        return len(view)

    def tell(self) -> int:
        """Bytes written."""
        return self._size

    def finish(self, rows: int) -> StoredFile:
        """Have what was written on the disk, for good. Raises OSError."""
        assert self._handle is not None
        sync_handle(self._handle)
        self._close()
        return StoredFile(self._name, rows, self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Leave no trace of it."""
        self._close()
        with suppress(OSError):
            self._path.unlink()

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
