"""A file that is written into an upload: nobody sees it before the upload is completed."""

from __future__ import annotations

import hashlib
import io
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, BinaryIO

from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.records import StoredFile, Upload

PIECE_BYTES = 8 << 20
"""S3 takes pieces from 5 MiB on, and 10,000 of them: parts of up to 80 GB."""

SENDERS = 8


@cache
def _senders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(SENDERS, "upload")


class OpenUpload:
    """An upload that was begun. mark: by which its object will be known for this upload's."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        """Begins it. Raises StorageError."""
        self.folder, self.name, self.mark = folder, name, secrets.token_hex(8)
        self.id = folder.s3.begin_upload(folder.bucket, folder.key(name), self.mark)

    def send(self, number: int, piece: bytes) -> str:
        """Send a piece, from 1 on: its etag."""
        return self.folder.s3.upload(self.folder.bucket, self.folder.key(self.name), self.id, number, piece)

    def abort(self) -> None:
        """Give it up."""
        self.folder.s3.abort_upload(self.folder.bucket, self.folder.key(self.name), self.id)


class UploadFile(io.RawIOBase):
    """What is written is sent in pieces while more is written; one piece is on its way, one is filled."""

    def __init__(self, upload: OpenUpload) -> None:
        self._upload = upload
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0
        self._sent: list[Future[str]] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Raises StorageError of a piece sent before."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._size += len(view)
        self._buffer += view
        while len(self._buffer) >= PIECE_BYTES:
            self._send(bytes(self._buffer[:PIECE_BYTES]))
            del self._buffer[:PIECE_BYTES]
        return len(view)

    def tell(self) -> int:
        """Bytes written."""
        return self._size

    def finish(self, rows: int) -> StoredFile:
        """Send what is left: the file as a record tells of it. Raises StorageError."""
        if self._buffer or not self._sent:  # an upload has a piece, if an empty one
            self._send(bytes(self._buffer))
            self._buffer.clear()
        etags = tuple(sent.result() for sent in self._sent)
        self._upload.folder.seal(self._upload.id)
        upload = Upload(self._upload.id, self._upload.mark, etags)
        return StoredFile(self._upload.name, rows, self._size, self._digest.hexdigest(), upload)

    def abandon(self) -> None:
        """Wait for what is on its way, then give the upload up."""
        for sent in self._sent:
            sent.cancel()
            if not sent.cancelled():
                sent.exception()
        self._buffer.clear()
        self._upload.abort()

    def _send(self, piece: bytes) -> None:
        if self._sent:
            self._sent[-1].result()  # memory stays bounded: two pieces
        self._sent.append(_senders().submit(self._upload.send, len(self._sent) + 1, piece))


class UploadStaged:
    """See `output.Staged`."""

    def __init__(self, upload: OpenUpload) -> None:
        self._file = UploadFile(upload)

    @property
    def sink(self) -> BinaryIO:
        """Takes what the Parquet writer gives."""
        return self._file  # type: ignore[return-value]

    def finish(self, rows: int) -> StoredFile:
        """See `UploadFile.finish`."""
        return self._file.finish(rows)

    def abandon(self) -> None:
        """See `UploadFile.abandon`."""
        self._file.abandon()


class ObjectStaged:
    """A small file that is kept in memory and put at its end; nobody looks at it before it counts."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        self._folder, self._name = folder, name
        self._file = io.BytesIO()

    @property
    def sink(self) -> BinaryIO:
        """Memory."""
        return self._file

    def finish(self, rows: int) -> StoredFile:
        """Write the object. Raises StorageError."""
        data = self._file.getvalue()
        self._folder.put(self._name, data)
        return StoredFile(self._name, rows, len(data), hashlib.sha256(data).hexdigest())

    def abandon(self) -> None:
        """There is nothing in the store yet."""
