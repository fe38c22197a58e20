"""What a run leaves for those who look at it later: how it worked, and what it took the place of."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter

import pyarrow as pa

from batchonnx.engines.engine import Engine
from batchonnx.errors import StorageError
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import ColumnProfile, Manifest, PastRun, Work
from batchonnx.planning.plan import Plan
from batchonnx.proof.columns import predicted_columns, profile_columns
from batchonnx.proof.history import as_past
from batchonnx.runtime.cores import usable_cores
from batchonnx.runtime.machine import cpu_name, peak_bytes
from batchonnx.runtime.providers import words_for
from batchonnx.storage.s3_requests import requests_sent

MOST_PAST = 100
"""Runs that a manifest remembers; each is about 300 bytes."""

PROFILED_ROWS, PROFILED_COLUMNS = 1 << 16, 32
"""What is looked at of a result that is about to be replaced: some milliseconds' worth."""


@dataclass(frozen=True)
class Begin:
    """When a run's life began. clock: perf_counter. sent: requests before it."""

    clock: float
    at: str
    sent: Counter[str]


def begin_now() -> Begin:
    """The life of a run begins."""
    return Begin(perf_counter(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), requests_sent())


def describe_work(plan: Plan, engine: Engine, begin: Begin, *, resumed: int, kept: int) -> Work:
    """How this life has worked so far. resumed, kept: as in `RunSummary`."""
    first_at = engine.first_at
    return Work(
        engine=engine.name,
        device=words_for(plan.device),
        host=platform.node(),
        machine=cpu_name(),
        cores=usable_cores(),
        workers=engine.workers,
        threads_per_worker=engine.threads,
        began=begin.at,
        elapsed_s=round(perf_counter() - begin.clock, 3),
        first_row_s=round(first_at - begin.clock, 3) if first_at is not None else None,
        start_s=engine.phases.start_s,
        resumed=resumed,
        kept=kept,
        halved=engine.halved,
        apart=engine.apart,
        lost=engine.lost,
        copied=engine.copied,
        requests=dict(requests_sent() - begin.sent),
        memory=peak_bytes(),
    )


def remember(output: Output, former: Manifest) -> tuple[tuple[PastRun, ...], tuple[ColumnProfile, ...]]:
    """Of a result that is about to be replaced, what its successor's manifest keeps; with all before it.

    A result that can't be read any more may be replaced all the same: nothing is then told of it.
    """
    try:
        plan = output.read_plan(former)
        names = predicted_columns(plan, former.layout.arrow_schema)
        profiles = profile_columns(
            output, former.layout, former.commits, names[:PROFILED_COLUMNS], rows=PROFILED_ROWS
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, StorageError):
        return former.history[-MOST_PAST:], ()
    past = as_past(former, plan.version)
    past = replace(past, completed=past.completed or plan.created)
    return (*former.history, past)[-MOST_PAST:], profiles
