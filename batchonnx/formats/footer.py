"""What is known of a file before its rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class RowGroup:
    """The smallest run of rows that can be read by itself.

    rows: None where only reading tells (CSV, JSON lines).
    bytes: in memory, all columns; an estimate from the footer or the file's size.
    """

    rows: int | None
    bytes: int


@dataclass(frozen=True)
class Footer:
    """A file's schema and row groups.

    schema: without Hive partition columns.
    nulls: column -> nulls in the whole file, for top-level columns whose statistics say so.
    """

    schema: pa.Schema
    row_groups: tuple[RowGroup, ...]
    nulls: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int | None:
        """Rows in the file; None where only reading tells."""
        known = [group.rows for group in self.row_groups if group.rows is not None]
        return sum(known) if len(known) == len(self.row_groups) else None
