"""Progress: one calm line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from batchonnx.report.text import count, duration
from batchonnx.report.verdict import verdict
from batchonnx.scoring.progress import Progress

PLAIN_EVERY_S = 10.0
RECENT_S = 3.0

Show = Callable[[Progress], None]


class Pace:
    """Rows per second over the last seconds: what the ETA follows, since jobs speed up and slow down."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = [(0.0, 0)]

    def rate(self, progress: Progress) -> float:
        """Rows/s over the last RECENT_S seconds, or since the start."""
        self._seen.append((progress.elapsed_s, progress.rows_in))
        while len(self._seen) > 2 and progress.elapsed_s - self._seen[1][0] >= RECENT_S:
            self._seen.pop(0)
        then, rows = self._seen[0]
        return (progress.rows_in - rows) / max(progress.elapsed_s - then, 1e-9)


def busiest_stage(progress: Progress) -> tuple[str, float] | None:
    """The stage that workers spend most time in, and its share of their time."""
    total = progress.elapsed_s * progress.workers
    if total <= 0 or not any(progress.busy_s.values()):
        return None
    stage = max(progress.busy_s, key=lambda name: progress.busy_s[name])
    return stage, min(1.0, progress.busy_s[stage] / total)


def progress_line(progress: Progress, rate: float) -> str:
    """`1,200,000 of 4,000,000 rows (30%)  812,000 rows/s  ETA 3.4 s  busiest: predict 61%`."""
    rows = count(progress.rows_in)
    parts = []
    if progress.rows_total:
        share = progress.rows_in / progress.rows_total
        parts.append(f"{rows} of {count(progress.rows_total)} rows ({share:.0%})")
    else:
        parts.append(f"{rows} rows, {progress.shards} of {progress.shards_total} shards")
    parts.append(f"{count(rate)} rows/s")
    if progress.rows_total and rate > 0 and progress.rows_in < progress.rows_total:
        parts.append(f"ETA {duration((progress.rows_total - progress.rows_in) / rate)}")
    if (told := verdict(progress.devices, progress.busy_s)) is not None:
        parts.append(told.partition(";")[0])
    elif (busy := busiest_stage(progress)) is not None:
        parts.append(f"busiest: {busy[0]} {busy[1]:.0%}")
    return "  ".join(parts)


@contextmanager
def live_view(*, quiet: bool) -> Iterator[Show | None]:
    """What to call with each Progress; None if nothing is to be shown. Writes to stderr."""
    if quiet or sys.stderr is None:  # None: whoever started us has closed it
        yield None
    elif sys.stderr.isatty():
        with _terminal() as show:
            yield show
    else:
        yield _plain()


def _plain() -> Show:
    pace, last = Pace(), 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        rate = pace.rate(progress)
        if progress.elapsed_s - last >= PLAIN_EVERY_S:
            last = progress.elapsed_s
            with suppress(OSError):  # nobody reads it: no reason to end the run
                print(progress_line(progress, rate), file=sys.stderr, flush=True)

    return show


@contextmanager
def _terminal() -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    pace = Pace()
    with Live(Text("starting"), console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            live.update(Text(progress_line(progress, pace.rate(progress)), no_wrap=True), refresh=True)

        yield show
