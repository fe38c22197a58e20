"""Where a prediction comes from: its file and row, its shard, model and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchonnx.errors import InputError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, StoredFile, lines_of
from batchonnx.parts.layout import Layout
from batchonnx.planning.identity import input_name
from batchonnx.planning.types import plain
from batchonnx.proof.origin import origin_of
from batchonnx.proof.published import place_in_shard, read_stored
from batchonnx.proof.recorded import recorded_job
from batchonnx.proof.verify import read_result
from batchonnx.scoring.quarantine import ERROR, FILE, ROW

MOST_MATCHES = 100


@dataclass(frozen=True)
class Origin:
    """What is behind one row of a result.

    row: its place in the result; None if it is in quarantine. part, part_row: the file that holds it
    and its place there. file, file_row: the input row. model: SHA-256 digest.
    settings: what else the value depends on, by name. values: the row as it was written.
    error: why it is in quarantine; None if it was predicted.
    """

    row: int | None
    part: str
    part_row: int
    file: str
    file_row: int
    shard: int
    model: str
    model_path: str
    settings: Mapping[str, str]
    run: str
    scored_at: str
    version: str
    values: Mapping[str, Any]
    error: str | None = None


def explain_row(output: Output, row: int) -> Origin:
    """The origin of the row at a place of the result, parts in the order of their names.

    Raises InputError if there is no such row, ChangedError if only input that has changed would tell.
    """
    plan, manifest = read_result(output)
    lines = sum(map(lines_of, manifest.commits))
    if 0 <= row < lines:
        first = 0
        for commit, part in _in_order(manifest):
            if row < first + part.rows:
                return _predicted(output, plan, commit, part, row, row - first)
            first += part.rows
    facts = {"output": output.path, "found": f"row {row:,}"}
    facts["expected"] = f"0 to {lines - 1:,}" if lines else "the result has no row"
    raise InputError(
        Problem("the result has no such row", facts, "name another row, or a kept column: --key")
    )


def explain_key(output: Output, column: str, text: str) -> list[Origin]:
    """The origins of all rows, predicted or in quarantine, that hold a value in a kept column.

    Raises InputError if no row does, or the column isn't kept, or there are more than MOST_MATCHES.
    """
    plan, manifest = read_result(output)
    found: list[Origin] = []
    first = 0
    for commit, part in _in_order(manifest):
        for place in _matches(output, manifest.layout, part, column, text):
            found.append(_predicted(output, plan, commit, part, first + place, place))
            _require_few(found, column, text)
        first += part.rows
    for commit in manifest.commits:
        if commit.quarantine is not None and _has_column(output, commit.quarantine.path, column):
            for place in _matches(output, Layout(), commit.quarantine, column, text):
                found.append(_quarantined(output, plan, commit, commit.quarantine, place))
                _require_few(found, column, text)
    if not found:
        facts = {"output": output.path, "column": column, "found": f"no row with {text}"}
        fix = "look for it in the input: input.filter may have left it out"
        raise InputError(Problem("no row of the result has this key", facts, fix))
    return found


def _require_few(found: list[Origin], column: str, text: str) -> None:
    if len(found) > MOST_MATCHES:
        facts = {"column": column, "expected": f"at most {MOST_MATCHES} rows", "found": f"more with {text}"}
        raise InputError(Problem("too many rows have this key", facts, "name a column that tells rows apart"))


def _predicted(
    output: Output, plan: PlanRecord, commit: Commit, part: StoredFile, row: int, place: int
) -> Origin:
    file, file_row = origin_of(output, plan, commit, place_in_shard(output, plan.layout, commit, part, place))
    values = _row_at(output, plan.layout, part, place)
    return _origin(plan, commit, row, part, place, file, file_row, values, None)


def _quarantined(output: Output, plan: PlanRecord, commit: Commit, stored: StoredFile, place: int) -> Origin:
    values = _row_at(output, Layout(), stored, place)
    file, row, error = (values[name] for name in (FILE, ROW, ERROR))
    return _origin(plan, commit, None, stored, place, file, row, values, error)


def _origin(
    plan: PlanRecord,
    commit: Commit,
    row: int | None,
    stored: StoredFile,
    place: int,
    file: str,
    file_row: int,
    values: Mapping[str, Any],
    error: str | None,
) -> Origin:
    job = recorded_job(plan)
    return Origin(
        row=row,
        part=stored.path,
        part_row=place,
        file=file,
        file_row=file_row,
        shard=commit.shard,
        model=plan.identity["model"].removeprefix("sha256 "),
        model_path=", ".join(job.resolve(model.path) for model in job.job.named_models.values()),
        settings={
            k: v for k, v in plan.identity.items() if k != "model" and not k.startswith(input_name(""))
        },
        run=plan.run,
        scored_at=commit.at,
        version=plan.version,
        values=values,
        error=error,
    )


def _in_order(manifest: Manifest) -> list[tuple[Commit, StoredFile]]:
    """All parts, in the order of their names, with their commits."""
    parts = ((commit, part) for commit in manifest.commits for part in commit.parts)
    return sorted(parts, key=lambda one: one[1].path)


def _has_column(output: Output, path: str, column: str) -> bool:
    """Rows in quarantine have no predictions."""
    with output.open(path) as source:
        return column in pq.read_schema(source).names


def _matches(output: Output, layout: Layout, stored: StoredFile, column: str, text: str) -> list[int]:
    """Places of a file's rows that hold a value, given as text."""
    schema = _schema(output, layout, stored)
    if column not in schema.names:
        facts = {
            "file": f"{output.path}/{stored.path}",
            "expected": f"one of {', '.join(schema.names)}",
            "found": column,
        }
        fix = "name a column of the result; keep: in the job file carries more along"
        raise InputError(Problem(f'the result has no column "{column}"', facts, fix))
    kind = schema.field(column).type
    read = [batch.column(0) for batch in read_stored(output, layout, stored, [column])]
    values = pa.chunked_array(read, kind)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        wanted = _scalar(text, values.type)
        return list(pc.indices_nonzero(pc.equal(values, wanted).fill_null(False)).to_pylist())
    except (ValueError, pa.ArrowException) as error:
        facts = {"column": column, "expected": str(values.type), "found": text}
        fix = "write the value as the column holds it"
        raise InputError(Problem("the key isn't a value of its column", facts, fix)) from error


def _scalar(text: str, kind: pa.DataType) -> pa.Scalar:
    """A value written as text. Raises ValueError, ArrowException."""
    if pa.types.is_time(kind):  # Arrow has no cast from text to a time of day
        return pa.scalar(time.fromisoformat(text), kind)
    return pa.scalar(text).cast(kind)


def _row_at(output: Output, layout: Layout, stored: StoredFile, place: int) -> dict[str, Any]:
    for batch in read_stored(output, layout, stored):
        if place < batch.num_rows:
            row = batch.slice(place, 1)
            return {name: plain(row.column(name)[0]) for name in row.schema.names}
        place -= batch.num_rows
    raise IndexError(place)


def _schema(output: Output, layout: Layout, stored: StoredFile) -> pa.Schema:
    """All columns of the result, or of the quarantine."""
    if layout.arrow_schema is not None:
        return layout.arrow_schema
    with output.open(stored.path) as source:
        return pq.read_schema(source)
