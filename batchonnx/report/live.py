"""Progress: one calm block on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batchonnx.engines.events import OnProgress
from batchonnx.report.text import count, duration, of_bytes, plural, printable
from batchonnx.scoring.progress import Progress
from batchonnx.watch.pace import Pace

PLAIN_EVERY_S = 10.0
HOSTS_SHOWN = 3


def progress_line(progress: Progress, pace: Pace) -> str:
    """`1,200,000 of 4,000,000 rows (30%)  812,000 rows/s  ETA 3.4 s  predict holds it back (61%)`."""
    parts = [_done(progress), f"{count(pace.rate)} rows/s"]
    if (eta := _eta(pace)) is not None:
        parts.append(eta)
    if pace.slowest is not None:
        parts.append(f"{pace.slowest} holds it back ({pace.shares[pace.slowest]:.0%})")
    parts += _trouble(progress)
    return "  ".join(parts)


def block_lines(progress: Progress, pace: Pace) -> list[tuple[str, list[str]]]:
    """What the block says: label -> phrases, which a narrow terminal may break between."""
    speed = [f"{count(pace.rate)} rows/s now", f"{count(pace.mean)} in the mean"]
    time = [f"{duration(progress.elapsed_s)} gone"]
    if (eta := _eta(pace)) is not None:
        time.append(eta)
    time.append(f"{count(progress.shards)} of {plural(progress.shards_total, 'shard')}")
    stages = [f"{stage} {share:.0%}" for stage, share in pace.shares.items()]
    if pace.slowest is not None:
        stages.append(f"{pace.slowest} holds it back")
    return [
        ("rows", [_done(progress), *_trouble(progress)]),
        ("speed", speed),
        ("time", time),
        ("stages", stages),
        ("workers", _crew(progress)),
    ]


def _done(progress: Progress) -> str:
    rows = count(progress.rows_done)
    if progress.rows_total:
        return f"{rows} of {count(progress.rows_total)} rows ({progress.rows_done / progress.rows_total:.0%})"
    return f"{rows} rows, {count(progress.shards)} of {count(progress.shards_total)} shards"


def _eta(pace: Pace) -> str | None:
    if pace.eta_s is None:
        return None
    return f"ETA {duration(pace.eta_s)}" if pace.eta_s > 0 else "publishing"


def _trouble(progress: Progress) -> list[str]:
    told = (
        (progress.quarantined, f"{count(progress.quarantined)} quarantined"),
        (progress.retries, f"{count(progress.retries)} retried"),
        (progress.lost, f"{plural(progress.lost, 'worker')} died"),
        (progress.copied, f"{plural(progress.copied, 'shard')} sent out again"),
    )
    return [text for number, text in told if number]


def _crew(progress: Progress) -> list[str]:
    told = [count(progress.workers)]
    if progress.hosts:
        hosts = sorted(progress.hosts.items(), key=lambda host: (-host[1], host[0]))
        shown = [f"{printable(name)} {number}" for name, number in hosts[:HOSTS_SHOWN]]
        more = [f"{len(hosts) - HOSTS_SHOWN} more hosts"] if len(hosts) > HOSTS_SHOWN else []
        told += [*shown, *more]
    if progress.memory:
        told.append(of_bytes(progress.memory))
    return told


@contextmanager
def live_view(*, quiet: bool) -> Iterator[OnProgress | None]:
    """What to call with each Progress; None if nothing is to be shown. Writes to stderr."""
    if quiet or sys.stderr is None:  # None: whoever started us has closed it
        yield None
    elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        with _terminal() as show:
            yield show
    else:
        yield _plain()


def _plain() -> OnProgress:
    pace, last = Pace(), 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        pace.note(progress)
        if progress.elapsed_s - last >= PLAIN_EVERY_S:
            last = progress.elapsed_s
            with suppress(OSError):  # nobody reads it: no reason to end the run
                print(progress_line(progress, pace), file=sys.stderr, flush=True)

    return show


@contextmanager
def _terminal() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    pace = Pace()

    def block(progress: Progress) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        if progress.rows_total:
            table.add_row("", ProgressBar(progress.rows_total, progress.rows_done, width=40))
        for label, phrases in block_lines(progress, pace):
            # A phrase is kept together: only the space between two may become a line break.
            text = Text("  ").join(Text(phrase.replace(" ", "\u00a0")) for phrase in phrases)
            if label == "stages" and pace.slowest is not None:
                text.highlight_words([f"{pace.slowest}\u00a0"], style="bold")
            table.add_row(label, text)
        return table

    with Live(Text("starting"), console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            pace.note(progress)
            live.update(block(progress), refresh=True)

        yield show
