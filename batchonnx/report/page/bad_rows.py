"""Why rows are in quarantine: reasons with how many rows each has, and some of those rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit
from batchonnx.planning.types import plain
from batchonnx.report.preview import cell
from batchonnx.scoring.quarantine import ERROR, FILE, ROW

MOST_ROWS = 100_000
"""So many rows in quarantine are looked at."""

MOST_REASONS, SAMPLES = 20, 3


@dataclass
class Reason:
    """An error, numbers and quoted text left open, its first words as they were, and its first rows.

    samples: file, row, and its columns by name.
    """

    error: str
    rows: int = 0
    samples: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)


def read_reasons(output: Output, commits: Sequence[Commit]) -> tuple[list[Reason], int]:
    """The most frequent reasons, and how many rows were looked at.

    Raises StorageError, OSError, ArrowException where a quarantine can't be read.
    """
    found: dict[str, Reason] = {}
    looked = 0
    for row in _rows(output, commits):
        if looked >= MOST_ROWS:
            break
        looked += 1
        error = str(row.pop(ERROR))
        alike = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "…", error)
        reason = found.setdefault(alike, Reason(error))
        reason.rows += 1
        if len(reason.samples) < SAMPLES:
            file, place = str(row.pop(FILE)), int(str(row.pop(ROW)))
            reason.samples.append((file, place, {k: cell(v) for k, v in row.items()}))
    return sorted(found.values(), key=lambda one: -one.rows)[:MOST_REASONS], looked


def _rows(output: Output, commits: Sequence[Commit]) -> Iterator[dict[str, object]]:
    for commit in commits:
        if commit.quarantine is None:
            continue
        with output.open(commit.quarantine.path) as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=1024):
                for i in range(batch.num_rows):
                    yield {name: plain(batch.column(name)[i]) for name in batch.schema.names}
