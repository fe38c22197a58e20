"""Progress: one calm block on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batchonnx.engines.events import OnProgress
from batchonnx.report.text import count, duration, of_bytes, plural, printable, shorten
from batchonnx.report.verdict import verdict
from batchonnx.scoring.progress import Progress
from batchonnx.watch.pace import Pace

PLAIN_EVERY_S = 10.0
HOSTS_SHOWN = 3
INDENT, BAR_WIDTH = 9, 60


def progress_line(progress: Progress, pace: Pace) -> str:
    """`1,200,000 of 4,000,000 rows (30%)  812,000 rows/s  ETA 3.4 s  predict holds it back (61%)`."""
    parts = [_done(progress), f"{count(pace.rate)} rows/s"]
    if (eta := _eta(pace)) is not None:
        parts.append(eta)
    if (told := verdict(progress.devices, progress.busy_s)) is not None:
        parts.append(told.partition(";")[0])
    elif pace.slowest is not None:
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
    told = verdict(progress.devices, progress.busy_s)
    stages = [f"{stage} {share:.0%}" for stage, share in pace.shares.items()]
    if pace.slowest is not None:
        stages.append(f"{pace.slowest} holds it back")
    return [
        ("rows", [_done(progress), *_trouble(progress)]),
        ("speed", speed),
        ("time", time),
        ("stages", stages),
        ("workers", _crew(progress)),
        *([("device", told.split("; "))] if told is not None else []),
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


def render(progress: Progress, pace: Pace, width: int) -> list[str]:
    """The block on a terminal of so many columns: a phrase is never broken, only cut."""
    lines = []
    if progress.rows_total:
        room = max(0, min(BAR_WIDTH, width - INDENT))
        full = round(room * progress.rows_done / progress.rows_total)
        lines.append(" " * INDENT + "━" * full + "╌" * (room - full))
    for label, phrases in block_lines(progress, pace):
        line = f"{label:<{INDENT}}{phrases[0]}"
        for phrase in phrases[1:]:
            if len(line) + 2 + len(phrase) > width:
                lines.append(line)
                line = " " * INDENT + phrase
            else:
                line += f"  {phrase}"
        lines.append(line)
    return [shorten(line, width) for line in lines]


@contextmanager
def _terminal() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    pace = Pace()
    with Live(Text("starting"), console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            pace.note(progress)
            text = Text("\n".join(render(progress, pace, live.console.width)), no_wrap=True)
            text.highlight_regex(r"\w+ holds it back", "bold")
            live.update(text, refresh=True)

        yield show
