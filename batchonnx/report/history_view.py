"""Runs and their differences, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from batchonnx.proof.diff.columns import ColumnChange
from batchonnx.proof.diff.diff import Difference, Side
from batchonnx.proof.history import ListedRun
from batchonnx.report.text import count, duration, plural, printable, shorten

PAIRS_SHOWN = 8


def format_runs(runs: Sequence[ListedRun]) -> str:
    """Each output with its runs, the latest last."""
    lines: list[str] = []
    for output, of_output in groupby(runs, key=lambda run: run.output):
        lines.append(printable(output))
        lines += ["  " + printable(_run(run)).rstrip() for run in of_output]
    return "\n".join(lines)


def _run(run: ListedRun) -> str:
    if run.state == "unfinished":
        return "unfinished: the command that began it goes on with it"
    counts = f"{count(run.predicted or 0)} predicted"
    if run.quarantined:
        counts += f", {count(run.quarantined)} quarantined"
    time = f"in {duration(run.elapsed_s)}" if run.elapsed_s is not None else ""
    state = "" if run.state == "published" else run.state
    return f"{run.completed:<24}  {run.run}  {counts}  {time}  model {run.model[:12]}  {state}"


def format_difference(found: Difference) -> str:
    """What differs between two results, in a screenful."""
    return "\n".join(printable(line) for line in _lines(found))


def _lines(found: Difference) -> Iterator[str]:
    yield f"a  {_side(found.a)}"
    yield f"b  {_side(found.b)}"
    same, changed, only_a, only_b = found.files
    files = f"{plural(same, 'file')} the same, {changed} changed"
    yield f"  input     {files}, {only_a} in a alone, {only_b} in b alone"
    if not found.settings:
        yield "  settings  the same"
    for name, old, new in found.settings:
        yield f"  settings  {name}: {shorten(old, 80)} -> {shorten(new, 80)}"
    rows, key = found.rows, "file and row" if len(found.joined_by) == 2 else found.joined_by[0]
    yield (
        f"  rows      {count(rows.both)} in both (by {key}), {count(rows.only_a)} in a alone, "
        f"{count(rows.only_b)} in b alone"
    )
    if rows.newly_bad or rows.no_longer_bad:
        yield f"  bad rows  {count(rows.newly_bad)} newly quarantined, {count(rows.no_longer_bad)} no longer"
    for column in found.columns:
        yield from _column(column)
    for name, output in found.unpaired:
        yield f"  {name}: only {output} has it"


def _side(side: Side) -> str:
    told = f"{side.output}  run {side.run}: {count(side.predicted)} predicted"
    if side.quarantined:
        told += f", {count(side.quarantined)} quarantined"
    if side.elapsed_s:
        told += f", {duration(side.elapsed_s)}, {count(side.rows_in / side.elapsed_s)} rows/s"
        told += f" with {plural(side.workers, 'worker')}, {side.engine}"
    return told


def _column(column: ColumnChange) -> Iterator[str]:
    if not column.compared:
        yield f"  {column.column}: {column.type}: nothing to compare"
        return
    share = column.changed / column.compared
    told = f"{count(column.changed)} of {count(column.compared)} changed ({share:.3%})"
    if column.shift is not None and column.changed:
        told += f", by {column.shift:+.4g} on average"
    if column.largest:
        told += f", at most by {column.largest:.4g} ({column.key})"
    yield f"  {column.column}: {told}"
    for old, new, number in column.labels[:PAIRS_SHOWN]:
        yield f"    {count(number):>12}  {shorten(old, 40)} -> {shorten(new, 40)}"
