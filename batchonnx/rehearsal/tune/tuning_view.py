"""What was tried, as a table, as a page with a picture, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from xml.etree.ElementTree import Element

from batchonnx.rehearsal.tune.search import Tried
from batchonnx.rehearsal.tune.tune import Tuning
from batchonnx.report.graph_view import drawing
from batchonnx.report.page.document import document
from batchonnx.report.page.html import facts, table, tag
from batchonnx.report.text import count, plural, printable

BAR_PX, ROW_PX = 420, 22


def format_tuning(tuning: Tuning) -> str:
    """All settings, the best first."""
    return "\n".join(printable(line) for line in _lines(tuning))


def tuning_as_dict(tuning: Tuning) -> dict[str, object]:
    """For `--json`; keys are documented in docs/rehearsals.md."""
    return {**asdict(tuning), "write": dict(settings_of(tuning)), "speedup": tuning.speedup}


def tuning_page(tuning: Tuning) -> bytes:
    """One HTML file with a bar for each setting."""
    name = f"Settings for {tuning.job}"
    heads = ("workers", "threads of each", "batch_rows", "hook_processes", "rows/s", "tries")
    rows = [
        (
            str(one.setting.workers),
            str(one.setting.threads),
            count(one.setting.batch_rows),
            str(one.setting.hook_processes),
            count(one.rows_per_s),
            ", ".join(map(count, one.tries)),
        )
        for one in tuning.tried
    ]
    told = [
        ("on", plural(tuning.cores, "core")),
        ("best", _named(tuning.best)),
        ("gain", f"{tuning.speedup:.2f} times what the job has now"),
    ]
    return document(
        name, [tag("h1", name), facts(told), _bars(tuning), tag("h2", "Tries"), table(heads, rows)]
    )


def settings_of(tuning: Tuning) -> Mapping[str, int]:
    """Keys of `engine` and the best values; those that nobody could choose are left out."""
    settings = [one.setting for one in tuning.tried]
    best = tuning.best.setting
    return {
        key: getattr(best, key)
        for key in ("workers", "batch_rows", "hook_processes")
        if len({getattr(setting, key) for setting in settings}) > 1
    }


def _lines(tuning: Tuning) -> Iterator[str]:
    yield f"{tuning.job}: {plural(len(tuning.tried), 'setting')} on {plural(tuning.cores, 'core')}"
    has_hooks = any(one.setting.hook_processes for one in tuning.tried)
    yield f"  workers  threads  batch_rows{'  hook_processes' if has_hooks else ''}          rows/s  tries"
    for one in tuning.tried:
        setting = one.setting
        hooks = f"  {setting.hook_processes:>14}" if has_hooks else ""
        mark = "  now" if setting == tuning.given else ""
        yield (
            f"  {setting.workers:>7}  {setting.threads:>7}  {setting.batch_rows:>10}{hooks}"
            f"  {count(one.rows_per_s):>14}  {len(one.tries):>5}{mark}"
        )
    gain = (
        "the job has it already" if tuning.best.setting == tuning.given else f"{tuning.speedup:.2f} times now"
    )
    yield f"  best: {_named(tuning.best)} ({gain})"


def _named(tried: Tried) -> str:
    setting = tried.setting
    hooks = f", hook_processes {setting.hook_processes}" if setting.hook_processes else ""
    return (
        f"workers {setting.workers}, batch_rows {setting.batch_rows}{hooks}: {count(tried.rows_per_s)} rows/s"
    )


def _bars(tuning: Tuning) -> Element:
    most = max((one.rows_per_s for one in tuning.tried), default=0.0) or 1.0
    shapes = []
    for number, one in enumerate(tuning.tried):
        top, width = 8 + ROW_PX * number, max(1.0, BAR_PX * one.rows_per_s / most)
        setting = one.setting
        hooks = f" + {setting.hook_processes}" if setting.hook_processes else ""
        shapes += [
            tag(
                "text",
                f"{setting.workers} x {setting.threads}{hooks}, {setting.batch_rows} rows",
                x="8",
                y=str(top + 12),
            ),
            tag("rect", class_="share", x="200", y=str(top), width=f"{width:.1f}", height="16"),
            tag("text", count(one.rows_per_s), x=f"{206 + width:.1f}", y=str(top + 12)),
        ]
    return drawing(860, 16 + ROW_PX * len(tuning.tried), shapes)
