"""How a result's files are written: their format, their folders, their names."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.ipc as ipc

PACKED = {"gzip": ".gz", "zstd": ".zst"}
"""Of text, the compression -> the last suffix of its files' names."""

_NAME = r"part-(\d{6,})-[0-9a-f]{8}(-\d{4,})?\.(parquet|arrow|(csv|jsonl)(\.gz|\.zst)?)"
_KEY = r"[^/=]+=[^/]*/"
_FOUND = re.compile(rf"({_KEY})*{_NAME}")


@dataclass(frozen=True)
class Layout:
    """What the parts of a result are.

    format: parquet, arrow, csv or jsonl. compression: none, or a codec's name.
    partition_by: columns whose values stand in folders' names, outermost first, and not in the files.
    exploded: columns that hold an element of a row's list in each line, beside `element`; empty where a line
    is a row.
    schema: all columns in their order, an Arrow IPC schema in base64; empty where nobody has written it down.
    """

    format: str = "parquet"
    compression: str = "zstd"
    partition_by: tuple[str, ...] = ()
    schema: str = ""
    exploded: tuple[str, ...] = ()

    @cached_property
    def arrow_schema(self) -> pa.Schema | None:
        """All columns, those in folders' names included; None if only the files tell."""
        return ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema))) if self.schema else None

    @cached_property
    def stored_schema(self) -> pa.Schema | None:
        """The columns that lie in the files."""
        return without(self.arrow_schema, self.partition_by) if self.arrow_schema is not None else None

    @property
    def suffix(self) -> str:
        """Of the files' names."""
        return suffix_of(self.format, self.compression)


PLAIN = Layout()
"""Parquet in one folder: so is what lies beside predictions, and so was all before there was a choice."""


def encoded(schema: pa.Schema) -> str:
    """A schema as a layout holds it."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def without(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """A schema without some of its columns."""
    return pa.schema([field for field in schema if field.name not in columns])


def default_compression(kind: str) -> str:
    """What is taken if the job doesn't say: text is plain, and Arrow files can be mapped into memory."""
    return "zstd" if kind == "parquet" else "none"


def suffix_of(kind: str, compression: str) -> str:
    """The suffix of a format's files, without the leading dot."""
    return kind + (PACKED.get(compression, "") if kind in ("csv", "jsonl") else "")


def part_name(shard: int, fingerprint: str, suffix: str = "parquet") -> str:
    """The name of a shard's part.

    Two results have no name in common: a reader who has listed one and opens its files when the other
    has taken its place finds them gone; never changed, and never some of them.
    """
    return f"part-{shard:06}-{fingerprint[:8]}.{suffix}"


def stem_of(path: str) -> str:
    """What a part's name begins with, before all suffixes: what belongs to its shard is called by it."""
    return PurePosixPath(path).name.split(".")[0]


def file_path(part: str, folder: str, number: int | None) -> str:
    """Of a shard's part, the file in a folder; number: which one of several, if there may be several."""
    stem, _, suffix = part.partition(".")
    name = part if number is None else f"{stem}-{number:04}.{suffix}"
    return f"{folder}/{name}" if folder else name


def part_of(path: str) -> str:
    """The part's name that a file's path was made of; see `file_path`."""
    name = PurePosixPath(path).name
    return re.sub(r"^(part-\d+-[0-9a-f]{8})-\d{4,}\.", r"\1.", name)


def renamed(path: str, fingerprint: str) -> str:
    """The path that a file of a kept part has in the result of another fingerprint."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + re.sub(r"^(part-\d+)-[0-9a-f]{8}", rf"\g<1>-{fingerprint[:8]}", name)


def shard_of(path: str) -> int | None:
    """The shard that a file of a result is of; None if its name isn't one that a part can have."""
    found = re.fullmatch(_NAME, PurePosixPath(path).name)
    return int(found[1]) if found else None


def looks_like_part(path: str) -> bool:
    """Whether a path can be that of a result's file, whatever the partition columns are."""
    return _FOUND.fullmatch(path) is not None


def is_part(path: str, partition_by: Sequence[str]) -> bool:
    """Whether a path can be that of a file of a result partitioned by these columns."""
    *folders, name = path.split("/")
    keys = [folder.partition("=")[0] for folder in folders]
    return re.fullmatch(_NAME, name) is not None and (not keys or keys == list(partition_by))
