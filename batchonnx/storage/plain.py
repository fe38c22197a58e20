"""Any fsspec store as one that has uploads: they are files of their own, and copied when they are completed.

What is missing stays missing: such a store has no conditions, so that of two writers both would win. Whoever
writes here says that there is one (`output.single_writer: trusted`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from batchonnx.errors import BatchonnxError, DependencyError, Problem, StorageError
from batchonnx.storage.s3 import S3Object


class PlainStore:
    """A folder of an fsspec store, with the methods of `s3.S3` that the ledger needs. bucket: always empty.

    uploads: the path of the folder for files that aren't to be seen yet. Every method raises StorageError.
    """

    def __init__(self, url: str, filesystem: AbstractFileSystem, uploads: str) -> None:
        self.endpoint = url
        self._fs, self._uploads = filesystem, uploads
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()

    def list(self, bucket: str, prefix: str) -> Iterator[S3Object]:
        """Files whose path begins with `prefix`, by path."""
        with self._told(prefix):
            self._fs.invalidate_cache()
            found = self._fs.find(prefix.rpartition("/")[0], detail=True)
        for path in sorted(found):
            if path.startswith(prefix):
                yield S3Object(path, int(found[path]["size"]), "")

    def head(self, bucket: str, key: str) -> S3Object | None:
        """A file without its bytes; None if there is none."""
        with self._told(key), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            return S3Object(key, int(self._fs.info(key)["size"]), "")
        return None

    def get(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """A small file's bytes and their digest; None if there is none."""
        with self._told(key), suppress(FileNotFoundError):
            data = bytes(self._fs.cat_file(key))
            return data, hashlib.sha256(data).hexdigest()
        return None

    def create(self, bucket: str, key: str, data: bytes) -> str | None:
        """Make a file unless there is one: its digest; looked at before and after, not in one step."""
        if self.head(bucket, key) is not None:
            return None
        digest = self.put(bucket, key, data)
        found = self.get(bucket, key)
        return digest if found is not None and found[1] == digest else None

    def swap(self, bucket: str, key: str, data: bytes, etag: str) -> str | None:
        """Replace the file of that digest: the new one's, or None; looked at first, and not in one step."""
        found = self.get(bucket, key)
        return self.put(bucket, key, data) if found is not None and found[1] == etag else None

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Write a file, in place of any former one: its digest."""
        with self._told(key):
            if isinstance(self._fs, LocalFileSystem):
                # Objects are there as a whole or not at all; files of a disk, only if they are renamed.
                staged = self._half(key)
                self._write(staged, data)
                self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
                self._fs.mv(staged, key)
            else:
                self._write(key, data)
        return hashlib.sha256(data).hexdigest()

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove files; those that aren't there are no error."""
        for key in keys:
            with self._told(key), suppress(FileNotFoundError):
                self._fs.rm_file(key)

    def delete_if(self, bucket: str, key: str, etag: str) -> None:
        """Remove the file of that digest."""
        found = self.get(bucket, key)
        if found is not None and found[1] == etag:
            self.delete(bucket, [key])

    def begin_upload(self, bucket: str, key: str, attempt: str) -> str:
        """A file that isn't seen yet, empty for now. Its id tells what it is for."""
        upload = f"{attempt}-{quote(key, safe='')}"
        with self._told(key):
            self._write(self._staged(upload), b"")
        return upload

    def upload(self, bucket: str, key: str, upload: str, number: int, data: bytes | memoryview) -> str:
        """Write on, the pieces one after the other."""
        with self._told(key):
            with self._lock:
                file = self._open.get(upload)
            if file is None:
                file = self._fs.open(self._staged(upload), "wb")
                with self._lock:
                    self._open[upload] = file
            file.write(data)
        return ""

    def seal_upload(self, upload: str) -> None:
        """All is written."""
        with self._lock:
            file = self._open.pop(upload, None)
        if file is not None:
            with self._told(upload):
                file.close()

    def complete_upload(
        self, bucket: str, key: str, upload: str, pieces: Sequence[str], size: int, attempt: str
    ) -> None:
        """Copy it to where it is seen, in the store; the staged file stays until it is given up."""
        staged = self.head(bucket, self._staged(upload))
        if staged is None or staged.size != size:
            if staged is None and self.is_of(bucket, key, size, attempt):
                return
            found = f"{staged.size:,} bytes" if staged is not None else "no such file"
            facts = {"file": self._staged(upload), "expected": f"{size:,} bytes", "found": found}
            fix = "find out what changes files there, and run the same command with --fresh"
            raise StorageError(Problem("a staged file isn't what was written", facts, fix))
        with self._told(key):
            try:
                self._fs.cp_file(self._staged(upload), key)
            except FileNotFoundError:
                self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
                self._fs.cp_file(self._staged(upload), key)

    def is_of(self, bucket: str, key: str, size: int, attempt: str) -> bool:
        """Whether a file of that size is there: nothing tells attempts' files apart but their bytes."""
        found = self.head(bucket, key)
        return found is not None and found.size == size

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """Remove what was staged; nothing to remove is no error."""
        with self._lock:
            file = self._open.pop(upload, None)
        if file is not None:
            with suppress(Exception):
                file.close()
        self.delete(bucket, [self._staged(upload)])

    def uploads(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and id of what is staged and whose key begins with `prefix`."""
        for entry in self.list(bucket, f"{self._uploads}/"):
            upload = entry.key.rpartition("/")[2]
            key = unquote(upload.partition("-")[2])
            if key.startswith(prefix) and not upload.startswith("."):
                yield key, upload

    def remove_halves(self, but: str) -> None:
        """Remove what a death has left of files that were being written. but: one that may be written now."""
        halves = [entry.key for entry in self.list("", f"{self._uploads}/.")]
        self.delete("", [half for half in halves if half != self._half(but)])

    def _half(self, key: str) -> str:
        """Where a small file is written before it is renamed."""
        return f"{self._uploads}/.{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def _staged(self, upload: str) -> str:
        return f"{self._uploads}/{upload}"

    def _write(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(path, data)
        except FileNotFoundError:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """A store's own errors, which are of any class, as one of ours."""
        try:
            yield
        except (BatchonnxError, FileNotFoundError):
            raise
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            facts = {"store": self.endpoint, "path": path, "found": lines[0][:300]}
            fix = "mend the cause and run the same command again: it goes on where it stopped"
            raise StorageError(Problem("the store refuses", facts, fix)) from error


def open_plain(url: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URL, and the path in it. Raises DependencyError, StorageError."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        fix = f"install the fsspec package for {scheme}://: {error}"
        raise DependencyError(Problem(f"{scheme}:// needs a package", {"output": url}, fix)) from error
    except ValueError as error:
        raise StorageError(
            Problem(f"unknown scheme {scheme}://", {"output": url}, "correct the scheme")
        ) from error
    return filesystem, str(path).rstrip("/")


def is_plain(url: str) -> bool:
    """Whether results at a path or URL are staged and copied: no local folder, and no S3."""
    return "://" in url and url.partition("://")[0] not in ("file", "s3")
