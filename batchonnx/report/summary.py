"""How a run went, in a few lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from batchonnx.report.text import count, duration, of_bytes, plural, printable
from batchonnx.report.verdict import verdict
from batchonnx.scoring.progress import DeviceUse, RunSummary


def format_summary(summary: RunSummary) -> str:
    """The closing lines of a run."""
    rate = summary.rows_in / summary.elapsed_s if summary.elapsed_s else 0.0
    rows = f"{plural(summary.rows_in, 'row')} in = {count(summary.predicted)} predicted"
    if summary.quarantined:
        rows += f" + {count(summary.quarantined)} quarantined"
    rows += f" + {count(summary.filtered)} filtered out"
    head = f"{printable(summary.job)}: {rows}"
    output = f"  output   {printable(summary.output)}  "
    output += f"({plural(summary.parts, 'part')}, {of_bytes(summary.bytes)})"
    if summary.table is not None:
        version = f"version {summary.table_version}" if summary.table_version is not None else "no rows yet"
        output += f"\n  table    {printable(summary.table)}, {version}"
    if not summary.is_new:
        note = "  note     the result of this job, model and input was there already: nothing was scored"
        return "\n".join([head, output, note])
    lines = [
        head,
        output,
        f"  time     {duration(summary.elapsed_s)}, {count(rate)} rows/s"
        + (f", first prediction after {duration(summary.first_row_s)}" if summary.first_row_s else ""),
        f"  engine   {_crew(summary)}, batches of {plural(summary.batch_rows, 'row')}, "
        f"{plural(summary.model_calls, 'call')} of the model",
    ]
    total = sum(summary.busy_s.values())
    if total:
        shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in summary.busy_s.items())
        slowest = f"; {summary.slowest_stage} held workers back" if summary.slowest_stage else ""
        lines.append(f"  stages   {shares}{slowest}")
    if (told := verdict(summary.devices, summary.busy_s)) is not None:
        lines.append(f"  device   {told}")
    lines += [f"           {_device(device)}" for device in summary.devices]
    if summary.resumed:
        lines.append(f"  resumed  {plural(summary.resumed, 'shard')} had been done before")
    if summary.kept:
        lines.append(f"  kept     {plural(summary.kept, 'part')} whose input hasn't changed")
    if summary.halved:
        lines.append(f"  memory   {plural(summary.halved, 'batch')} needed too much and went in pieces")
    if summary.apart:
        lines.append(f"  deaths   {plural(summary.apart, 'shard')} went to a process apart: others had died")
    if (told := _phases(summary)) is not None:
        lines.append(f"  cluster  {told}")
    if summary.lost or summary.copied:
        lost, copied = plural(summary.lost, "worker"), plural(summary.copied, "shard")
        lines.append(f"  faults   {lost} died, {copied} went to a second worker as well")
    if summary.requests:
        told = ", ".join(f"{name} {count(number)}" for name, number in sorted(summary.requests.items()))
        again = f", {count(summary.retries)} sent again" if summary.retries else ""
        lines.append(f"  store    {plural(sum(summary.requests.values()), 'request')}{again}: {told}")
        if summary.publish_s is not None:
            lines.append(f"  publish  took {duration(summary.publish_s)}")
    lines += [f"  note     {printable(note)}" for note in summary.notes]
    return "\n".join(lines)


def _crew(summary: RunSummary) -> str:
    where = "Ray, " if summary.engine == "ray" else ""
    threads = plural(summary.threads_per_worker, "thread")
    device = f" on {summary.device}" if summary.device != "cpu" else ""
    return f"{where}{plural(summary.workers, 'worker')} x {threads}{device}"


def _device(device: DeviceUse) -> str:
    told = f"{device.name}: " + ("lost" if device.is_lost else f"a batch on it {device.busy:.0%} of the time")
    if device.utilisation is not None:
        told += f", computing {device.utilisation:.0%}"
    if device.memory is not None:
        told += f", {of_bytes(device.memory)} in use"
        told += f" of {of_bytes(device.memory_total)}" if device.memory_total is not None else ""
    return told


def _phases(summary: RunSummary) -> str | None:
    """What comes before scoring on a cluster, and scoring alone."""
    told = [
        (summary.cluster_s, "there after {}"),
        (summary.actors_s, "the first process {} later"),
        (summary.start_s, "the first worker ready after {}"),
        (summary.scoring_s, "{} of scoring"),
    ]
    known = [text.format(duration(seconds)) for seconds, text in told if seconds is not None]
    return ", ".join(known) or None


def summary_as_dict(summary: RunSummary) -> dict[str, object]:
    """The summary for `--json`; keys are documented in docs/cli.md."""
    return asdict(summary)
