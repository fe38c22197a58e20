"""What an S3 service holds at a path: its listing, and copies of single objects."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from batchonnx.errors import BatchonnxError, InputError
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.globs import glob_regex, is_glob, literal_prefix
from batchonnx.storage.ranged import Piece, RangedFile, ReadAhead
from batchonnx.storage.s3 import S3Object, s3_client, split_url
from batchonnx.storage.spans import PIECE_BYTES, SMALL_BYTES, Span, announce, sequential


def expand_s3(pattern: str, hidden: tuple[str, ...]) -> list[FileEntry] | None:
    """The objects that s3://bucket/key names: below it as a folder, else itself, else what it matches.

    None if nothing is there. Asks for names that begin with the longest part of the pattern in which
    nothing is wild, and never for a single one again. Raises InputError if the store refuses.
    """
    bucket, key = split_url(pattern)
    found = list(_objects(bucket, key)) if is_glob(key) else list(_named(bucket, key))
    folder = _folder(key)
    chosen = [entry for entry in found if entry.key.startswith(folder)]
    if not chosen and (itself := [entry for entry in found if entry.key == key]):
        return _entries(bucket, itself)
    if not chosen and is_glob(key):
        wanted = glob_regex(key)
        chosen = [entry for entry in found if wanted.fullmatch(entry.key)]
        folder = literal_prefix(key).rpartition("/")[0]
    shown = [entry for entry in chosen if not _is_hidden(entry.key[len(folder) :], hidden)]
    return _entries(bucket, shown) if chosen or is_glob(key) else None


def open_s3(file: FileEntry | str, first_bytes: int) -> RangedFile | None:
    """An object to be read, of which so many bytes will be, from the beginning; None if there is none.

    file: as it was listed, or a URL.
    """
    if isinstance(file, FileEntry):
        return RangedFile(file, map(Piece, announce(file, first_bytes)))
    bucket, key = split_url(file)
    first = s3_client().begin(bucket, key, SMALL_BYTES)
    if first is None:
        return None
    data, found = first
    entry = FileEntry(file, found.size, found.etag)
    return RangedFile(entry, [Piece(Span(0, len(data)), data)] if data else [])


def copy_s3(url: str, target: Path, kind: type[BatchonnxError]) -> bool:
    """Copy an object to a local file, its pieces side by side; False if there is none.

    An object that is replaced meanwhile is an error, of the class `kind`.
    """
    bucket, key = split_url(url)
    first = s3_client().begin(bucket, key, PIECE_BYTES, kind)
    if first is None:
        return False
    data, found = first
    entry = FileEntry(url, found.size, found.etag)
    rest = sequential(len(data), entry.size)
    with ReadAhead([(entry, lambda: rest)], kind) as ahead, target.open("wb") as copy:
        copy.write(data)
        file = ahead.next_file()
        file.seek(len(data))
        while block := file.read_buffer(PIECE_BYTES):
            copy.write(block)
    return True


def _objects(bucket: str, prefix: str) -> Iterator[S3Object]:
    found = s3_client().list(bucket, literal_prefix(prefix), InputError)
    # Consoles and Hadoop mark folders with empty objects of such names.
    return (entry for entry in found if not entry.key.endswith("/"))


def _named(bucket: str, key: str) -> Iterator[S3Object]:
    """What is below a folder; if that is nothing, the object itself."""
    found = False
    for entry in _objects(bucket, _folder(key)):
        found = True
        yield entry
    if not found and _folder(key) != key:
        # Of all names that begin with it, the name itself comes first.
        yield from (entry for entry in islice(_objects(bucket, key), 1) if entry.key == key)


def _folder(key: str) -> str:
    """What the keys of all that is in a folder begin with. `a//` isn't `a/`: names may be empty."""
    return key if not key or key.endswith("/") else f"{key}/"


def _is_hidden(inside: str, hidden: tuple[str, ...]) -> bool:
    return any(part.startswith(hidden) for part in inside.split("/"))


def _entries(bucket: str, objects: list[S3Object]) -> list[FileEntry]:
    return [FileEntry(f"s3://{bucket}/{entry.key}", entry.size, entry.etag) for entry in objects]
