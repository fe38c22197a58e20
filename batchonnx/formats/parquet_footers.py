"""Footers of Parquet objects, as they lie at a file's end: kept a while, for plan and shards ask again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from batchonnx.storage.entry import FileEntry
from batchonnx.storage.ranged import read_range

TAIL_BYTES = 64 << 10
"""What the first request fetches of a file's end: more than nearly any footer."""
KEPT_BYTES = 64 << 20
END = 8
"""The length of what stands before it, and the magic."""

_lock = Lock()
_kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
_size = 0


def footer_bytes(file: FileEntry) -> bytes:
    """An object's footer and what ends it, or the whole of what isn't Parquet; a request or two, or none.

    Raises InputError if the object is gone or has changed.
    """
    with _lock:
        if (known := _kept.get((file.path, file.version))) is not None:
            _kept.move_to_end((file.path, file.version))
            return known
    begin = max(0, file.size - TAIL_BYTES)
    tail: bytes = read_range(file, begin, file.size).to_pybytes()
    length = int.from_bytes(tail[-END:-4], "little") + END
    if tail[-4:] == b"PAR1" and length <= file.size:
        if length > len(tail):
            tail = read_range(file, file.size - length, begin).to_pybytes() + tail
        tail = tail[-length:]
    _keep(file, tail)
    return tail


def _keep(file: FileEntry, tail: bytes) -> None:
    global _size
    with _lock:
        former = _kept.pop((file.path, file.version), b"")
        _kept[file.path, file.version] = tail
        _size += len(tail) - len(former)
        while _size > KEPT_BYTES and len(_kept) > 1:
            _size -= len(_kept.popitem(last=False)[1])
