"""A drill in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from batchonnx.errors import Problem
from batchonnx.rehearsal.chaos.drill import Drill
from batchonnx.report.text import count, duration, plural, printable

SHOWN = 3


def format_drill(drill: Drill) -> str:
    """A table: promise, what became of it, what was done."""
    return "\n".join(printable(line) for line in _lines(drill))


def drill_as_dict(drill: Drill) -> dict[str, object]:
    """For `--json`; keys are documented in docs/rehearsals.md."""
    return {**asdict(drill), "is_green": drill.is_green}


def broken(drill: Drill) -> list[Problem]:
    """Each promise that didn't hold, as what ends the command."""
    fix = "please report it, with the seed, the job and the versions: a promise of batchonnx was broken"
    return [
        Problem(
            f'the promise "{verdict.promise}" was broken',
            {"job": drill.job, "seed": str(drill.seed), "found": "; ".join(verdict.told[:SHOWN])},
            fix,
        )
        for verdict in drill.verdicts
        if verdict.status == "broken"
    ]


def _lines(drill: Drill) -> Iterator[str]:
    sample = f"{count(drill.rows)} rows in {plural(drill.shards, 'shard')}"
    yield f"{drill.job}, {drill.engine} engine: {sample}, {duration(drill.runs_s)}, --seed {drill.seed}"
    width = max(len(verdict.promise) for verdict in drill.verdicts)
    for verdict in drill.verdicts:
        first, *others = verdict.told[:SHOWN]
        times = f" ({verdict.looks} times)" if verdict.looks > 1 and verdict.status == "held" else ""
        yield f"  {verdict.promise:<{width}}  {verdict.status:<9}  {first}{times}"
        for told in others:
            yield f"  {'':<{width}}  {'':<9}  {told}"
    told = "every promise that was tried held" if drill.is_green else "a promise was broken"
    yield f"  {told}"
