"""A folder of an S3 bucket: names below one prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from batchonnx.storage.s3 import S3, S3Object, s3_client, split_url

AT_ONCE = 32
"""Requests under way together where many small ones are wanted."""


class ObjectFolder:
    """Objects by their names below `url`. Every method raises StorageError."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.bucket, prefix = split_url(self.url)
        self._prefix = f"{prefix}/" if prefix else ""

    @cached_property
    def s3(self) -> S3:
        """The client, as the settings in force say at first use."""
        return s3_client()

    def key(self, name: str) -> str:
        """The key of a name."""
        return self._prefix + name

    def url_of(self, name: str) -> str:
        """For messages."""
        return f"{self.url}/{name}"

    def head(self, name: str) -> S3Object | None:
        """An object without its bytes; None if there is none."""
        return self.s3.head(self.bucket, self.key(name))

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Bytes and etag; None if there is no such object."""
        return self.s3.get(self.bucket, self.key(name))

    def get_all(self, names: Iterable[str]) -> Iterator[bytes]:
        """Bytes of those that are there, many at a time, in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(self.get, names):
                if found is not None:
                    yield found[0]

    def create(self, name: str, data: bytes) -> str | None:
        """See `S3.create`."""
        return self.s3.create(self.bucket, self.key(name), data)

    def swap(self, name: str, data: bytes, etag: str) -> str | None:
        """See `S3.swap`."""
        return self.s3.swap(self.bucket, self.key(name), data, etag)

    def put(self, name: str, data: bytes) -> str:
        """See `S3.put`."""
        return self.s3.put(self.bucket, self.key(name), data)

    def delete_if(self, name: str, etag: str) -> None:
        """See `S3.delete_if`."""
        self.s3.delete_if(self.bucket, self.key(name), etag)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        self.s3.delete(self.bucket, [self.key(name) for name in names])

    def list(self, prefix: str = "") -> Iterator[S3Object]:
        """Objects whose names begin with `prefix`; `key` is the name in this folder."""
        for found in self.s3.list(self.bucket, self.key(prefix)):
            yield S3Object(found.key[len(self._prefix) :], found.size, found.etag)

    def delete_below(self, prefix: str) -> int:
        """Remove all objects whose names begin with `prefix`: how many bytes they had."""
        found = list(self.list(prefix))
        self.delete([entry.key for entry in found])
        return sum(entry.size for entry in found)

    def uploads(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Names and ids of the uploads that are open and whose names begin with `prefix`."""
        for key, upload in self.s3.uploads(self.bucket, self.key(prefix)):
            yield key[len(self._prefix) :], upload

    def seal(self, upload: str) -> None:
        """All of an upload was sent: for stores that have to be told."""
        if (seal := getattr(self.s3, "seal_upload", None)) is not None:
            seal(upload)

    def abort(self, uploads: Iterable[tuple[str, str]]) -> None:
        """Give uploads up, many at a time."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: self.s3.abort_upload(self.bucket, self.key(one[0]), one[1]), uploads))
