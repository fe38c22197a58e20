"""From a listing to shards: the unit of work, of commit and of retry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A file's share of a shard: a run of its row groups.

    file: index into the listing. first_row: row index, within the file, of the first row.
    rows: None where only reading tells.
    """

    file: int
    row_groups: tuple[int, ...]
    first_row: int
    rows: int | None


@dataclass(frozen=True)
class Shard:
    """A run of row groups, of one file or of many small ones. part: its part's file name."""

    number: int
    sources: tuple[Source, ...]
    rows: int | None
    bytes: int
    part: str
