"""The record that makes a part count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Commit:
    """A finished shard. rows_in == predicted + filtered. bytes: of the part."""

    shard: int
    part: str
    rows_in: int
    predicted: int
    filtered: int
    bytes: int
