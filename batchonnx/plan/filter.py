"""The filter: one readable expression language, parsed to an Arrow expression."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc


@dataclass(frozen=True)
class Filter:
    """A parsed filter. text: as the user wrote it. columns: the columns it reads."""

    text: str
    expression: pc.Expression
    columns: frozenset[str]
