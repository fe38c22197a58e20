"""The encoded files of a column: their bytes, whether they lie in the table or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.errors import StorageError
from batchonnx.planning.bindings import Encoded
from batchonnx.scoring.chunk import BadRow
from batchonnx.storage.whole import read_whole

R = TypeVar("R")

FETCHES = 16
"""Files that one worker fetches from stores at the same time. It waits for them, so they take no core."""


class Undecodable(Exception):
    """Why a value can't become numbers: the row's fault, and its reason in quarantine."""


class Blobs:
    """A column's values as bytes, row by row.

    folder: where relative paths count from, absolute or a URL.
    """

    def __init__(self, array: pa.Array, encoded: Encoded, folder: str) -> None:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pat.is_dictionary(array.type):
            array = array.dictionary_decode()
        self._folder = folder
        self._bytes = array if encoded == "bytes" else None
        self._paths = array if encoded == "paths" else None
        if encoded == "struct":
            names = [field.name for field in array.type]
            self._bytes = pc.struct_field(array, "bytes")
            self._paths = pc.struct_field(array, "path") if "path" in names else None

    def rows(self, start: int, stop: int) -> list[memoryview | bytes | Undecodable]:
        """Each row's bytes, never none at all, or why there are none.

        Raises InputError where a file is there and can't be read: that is no row's fault.
        """
        rows = range(start, stop)
        if self._paths is None or not any("://" in (self._path(row) or "") for row in rows):
            return [self._told(row) for row in rows]
        with ThreadPoolExecutor(min(FETCHES, len(rows))) as pool:
            return list(pool.map(self._told, rows))

    def _told(self, row: int) -> memoryview | bytes | Undecodable:
        try:
            return self._value(row)
        except Undecodable as reason:
            return reason

    def _value(self, row: int) -> memoryview | bytes:
        if self._bytes is not None and self._bytes[row].is_valid:
            value = memoryview(self._bytes[row].as_buffer())
            if not len(value):
                raise Undecodable("no bytes: the value is empty")
            return value
        path = self._path(row)
        if not path:
            raise Undecodable("null, a file is wanted" if path is None else "an empty path")
        try:
            data = read_whole(path)
        except StorageError as error:
            raise Undecodable(f"{error.problems[0].title} in {path!r:.200}") from error
        if data is None:
            raise Undecodable(f"no such file: {path}")
        if not data:
            raise Undecodable(f"an empty file: {path}")
        return data

    def _path(self, row: int) -> str | None:
        """The row's path, absolute or a URL; None where it names none, empty as it is."""
        path = self._paths[row].as_py() if self._paths is not None else None
        if not path or "://" in path or os.path.isabs(path):  # noqa: PTH117
            return path
        return f"{self._folder}/{path}"


def require_alike(
    shapes: Sequence[tuple[int, ...]], told: Callable[[tuple[int, ...]], str], column: str, first: int
) -> None:
    """Decoded values of one batch have one shape. told: a shape, in words. first: row of the first one.

    Raises BadRow that names the first of another shape than its batch's first.
    """
    for place, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise BadRow(first + place, column, f"{told(shape)}, {told(shapes[0])} like its neighbours")


def decode_each(
    decode: Callable[[int, memoryview | bytes], R],
    given: Sequence[memoryview | bytes | Undecodable],
    column: str,
    first: int,
    threads: int,
) -> list[R]:
    """What becomes of each value, in order.

    decode: given a value's place and its bytes. first: row of the first one.
    Raises BadRow that names every value that is Undecodable, or for which `decode` raises it.
    """
    results: dict[int, R] = {}
    reasons: dict[int, str] = {}

    def one(place: int) -> None:
        data = given[place]
        try:
            if isinstance(data, Undecodable):
                raise data
            results[place] = decode(place, data)
        except Undecodable as reason:
            reasons[place] = str(reason)

    if threads > 1 and len(given) > 1:
        with ThreadPoolExecutor(min(threads, len(given))) as pool:
            list(pool.map(one, range(len(given))))
    else:
        for place in range(len(given)):
            one(place)
    if reasons:
        (place, reason), *others = sorted(reasons.items())
        raise BadRow(first + place, column, reason, lambda: ((first + p, why) for p, why in others))
    return [results[place] for place in range(len(given))]
