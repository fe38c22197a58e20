"""How a run went, in a few lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from batchonnx.report.text import count, duration, of_bytes, plural, printable
from batchonnx.scoring.progress import RunSummary


def format_summary(summary: RunSummary) -> str:
    """The closing lines of a run."""
    rate = summary.rows_in / summary.elapsed_s if summary.elapsed_s else 0.0
    rows = f"{plural(summary.rows_in, 'row')} in = {count(summary.predicted)} predicted"
    lines = [
        f"{printable(summary.job)}: {rows} + {count(summary.filtered)} filtered out",
        f"  output   {printable(summary.output)}  "
        f"({plural(summary.parts, 'part')}, {of_bytes(summary.bytes)})",
        f"  time     {duration(summary.elapsed_s)}, {count(rate)} rows/s"
        + (f", first prediction after {duration(summary.first_row_s)}" if summary.first_row_s else ""),
        f"  engine   {plural(summary.workers, 'worker')} x {plural(summary.threads_per_worker, 'thread')}, "
        f"batches of {plural(summary.batch_rows, 'row')}, {plural(summary.model_calls, 'call')} of the model",
    ]
    total = sum(summary.busy_s.values())
    if total:
        shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in summary.busy_s.items())
        lines.append(f"  stages   {shares}")
    lines += [f"  note     {printable(note)}" for note in summary.notes]
    return "\n".join(lines)


def summary_as_dict(summary: RunSummary) -> dict[str, object]:
    """The summary for `--json`; keys are documented in docs/cli.md."""
    return asdict(summary)
