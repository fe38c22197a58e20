"""Rows that can't be scored: why, what is kept of them, and how many there may be."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import BatchonnxError, HookRaised, Problem, RowError
from batchonnx.scoring.chunk import BadRow, Chunk
from batchonnx.scoring.pick import pick

FILE, ROW, ERROR = "batchonnx_file", "batchonnx_row", "batchonnx_error"
CELL_BYTES = 64 << 10
"""A larger value of a bad row isn't kept, nor text that isn't UTF-8: null stands for it."""

SHOWN = 3


class ErrorBudget:
    """How many rows may be bad; shared by all workers of a run.

    most: rows, or a share of `rows_total` ("0.1%"). spent: bad rows so far, former lives included.
    rows_total: None where only reading tells; a share is then of at least UNTOLD_ROWS.
    """

    UNTOLD_ROWS = 100_000

    def __init__(self, most: int | str, rows_total: int | None, spent: int = 0) -> None:
        self._told, self.rows_total = str(most), rows_total
        if isinstance(most, str):
            share = float(most.rstrip("%")) / 100
            self.limit = int(share * (rows_total if rows_total is not None else self.UNTOLD_ROWS))
        else:
            self.limit = most
        self.spent = spent
        self._examples: list[Problem] = []
        self._lock = threading.Lock()

    def spend(self, error: BatchonnxError) -> None:
        """Count a bad row. Raises `error` itself where none is allowed, RowError where it is one too many."""
        with self._lock:
            self.spent += 1
            self._examples += error.problems[: SHOWN - len(self._examples)]
        if self.limit == 0 and self._told == "0":
            raise error
        if self.spent > self.limit:
            raise RowError(self._too_many(), *self._examples)

    def recount(self, spent: int) -> None:
        """Take back what was found in rows that will be scored again. spent: what is left."""
        with self._lock:
            self.spent = spent

    def count(self, rows: int) -> None:
        """Count bad rows that another process has found. Raises RowError where they are too many."""
        with self._lock:
            self.spent += rows
        if self.spent > self.limit:
            raise RowError(self._too_many())

    def _too_many(self) -> Problem:
        facts = {
            "errors.max_bad_rows": f"{self._told} ({self.limit:,} rows)",
            "found": f"{self.spent:,} bad rows so far"
            + ("; the first are told below" if self._examples else ""),
        }
        fix = "mend the rows, or raise errors.max_bad_rows: the same command then goes on where it stopped"
        return Problem("too many rows can't be scored", facts, fix)


def quarantine_rows(chunk: Chunk, rows: Sequence[int], reasons: Sequence[str]) -> pa.RecordBatch:
    """Bad rows of a chunk with where they came from and why they are here, then their columns."""
    origins = [chunk.origin(row) for row in rows]
    columns = [_capped(column) for column in pick(chunk.columns, rows).columns]
    told = [
        pa.array([path for path, _ in origins], pa.string()),
        pa.array([row for _, row in origins], pa.int64()),
        pa.array(reasons, pa.string()),
    ]
    return pa.RecordBatch.from_arrays([*told, *columns], schema=quarantine_schema(chunk.columns.schema))


def quarantine_schema(columns: pa.Schema) -> pa.Schema:
    """File, row and error, then the columns that the job reads; any of those may be null."""
    told = [pa.field(FILE, pa.string()), pa.field(ROW, pa.int64()), pa.field(ERROR, pa.string())]
    taken = {FILE, ROW, ERROR}
    names = [f"{name}_" if name in taken else name for name in columns.names]
    return pa.schema([*told, *(pa.field(n, field.type) for n, field in zip(names, columns, strict=True))])


def _capped(column: pa.Array) -> pa.Array:
    if pat.is_primitive(column.type) or (column.nbytes <= CELL_BYTES and _is_valid(column)):
        return column
    cells = [column.slice(i, 1) for i in range(len(column))]
    kept = [
        cell if cell.nbytes <= CELL_BYTES and _is_valid(cell) else pa.nulls(1, column.type) for cell in cells
    ]
    return pa.concat_arrays(kept)


def _is_valid(column: pa.Array) -> bool:
    """Whether all text in it is UTF-8: Arrow doesn't look where it reads."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def reason_of(error: Exception) -> str:
    """Why a row is bad, as quarantine tells it. error: one of `isolate.RowFault`."""
    if isinstance(error, BadRow):
        return f"{error.column}: {error.reason}"
    if isinstance(error, HookRaised):
        return error.problems[0].facts["found"]
    return str(error)


def row_error(error: Exception, path: str, row: int) -> BatchonnxError:
    """A bad row's failure, told with where the row came from."""
    where = {"file": path, "row": f"{row:,}"}
    if isinstance(error, BadRow):
        facts = {**where, "column": error.column, "found": error.reason}
        fix = "mend the row, leave it out with input.filter, give the feature a fill or cast, or allow some"
        fix += " bad rows: errors.max_bad_rows"
        title = f'column "{error.column}" can\'t be encoded in row {row:,} of {path}'
        return RowError(Problem(title, facts, fix))
    if isinstance(error, HookRaised):
        (problem,) = error.problems
        return HookRaised(Problem(problem.title, {**where, **problem.facts}, problem.fix))
    facts = {**where, "found": str(error)}
    fix = "mend the row or leave it out with input.filter, or allow some bad rows: errors.max_bad_rows"
    return RowError(Problem(f"the model fails on row {row:,} of {path}", facts, fix))
