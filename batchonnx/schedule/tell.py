"""Ticks and what became of them, in words."""

from __future__ import annotations

from collections.abc import Sequence

from batchonnx.report.text import plural, printable
from batchonnx.schedule.calendar import Calendar, Tick
from batchonnx.schedule.run_tick import TickResult

_WORDS = {
    "already": "published already",
    "overdue": "stopped at its deadline; what is scored is kept",
    "replaced": "replaced by the next tick",
    "skipped": "skipped, another tick was running",
}


def format_result(result: TickResult) -> str:
    """One line: `2026-11-22  published, 1,797 rows  /scores/day=2026-11-22`."""
    told = _WORDS.get(result.outcome, result.outcome)
    if result.predicted is not None:
        told += f", {plural(result.predicted, 'row')}"
    if result.problem is not None and result.outcome != "stopped":
        told += f": {result.problem}"
    return printable(f"{result.date}  {told}  {result.output}")


def format_ticks(ticks: Sequence[Tick], calendar: Calendar) -> str:
    """A line for each: when, by the schedule's zone and UTC, and for which date."""
    lines = [
        f"{tick.at.astimezone(calendar.zone).isoformat(sep=' ')}  {tick.at:%Y-%m-%dT%H:%MZ}  {tick.date}"
        for tick in ticks
    ]
    return "\n".join([f"{'due (' + str(calendar.zone) + ')':<25}  {'UTC':<17}  date", *lines])


def exit_code_of(results: Sequence[TickResult]) -> int:
    """The first failure's; 3 for one that met its deadline."""
    return next((result.exit_code or 3 for result in results if result.outcome in ("failed", "overdue")), 0)
