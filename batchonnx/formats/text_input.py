"""The bytes of text files: unpacked where their name says that they are packed."""

from __future__ import annotations

import pyarrow as pa

from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import open_input

BLOCK_BYTES = 4 << 20
"""Rows are parsed in blocks of this size."""


def open_first_block(file: FileEntry) -> pa.NativeFile:
    """A file of which only the first rows will be read."""
    return open_input(file, BLOCK_BYTES)


def unpacked(stream: pa.NativeFile, path: str) -> pa.NativeFile:
    """The text in a file, packed or not."""
    codec = _CODECS.get(path.lower().rpartition(".")[2])
    return pa.CompressedInputStream(stream, codec) if codec else stream


_CODECS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4", "br": "brotli"}
"""A name's last suffix -> how the file is packed."""
