"""Pictures as inline SVG, drawn by matplotlib: numbers and our own words only, in the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element, fromstring

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from batchonnx.ledger.records import ColumnProfile
from batchonnx.report.page.timeline import DURATION_BINS, Timeline
from batchonnx.report.text import count, duration, of_bytes
from batchonnx.scoring.progress import STAGES

SIZE_IN = (5.0, 2.5)
_INK, _RULE, _FIRST, _SECOND = "#010203", "#010204", "#010205", "#010206"
_STAGES = {stage: f"#0201{number:02}" for number, stage in enumerate(STAGES, 1)}
_VARIABLES = {_INK: "--ink", _RULE: "--rule", _FIRST: "--now", _SECOND: "--before"}
_VARIABLES |= {colour: f"--{stage}" for stage, colour in _STAGES.items()}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "batchonnx",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "text.parse_math": False,
}


def draw_throughput(timeline: Timeline) -> Element:
    """Rows per second over the run."""

    def draw(axes: Axes) -> None:
        axes.stairs(timeline.rows_per_s, timeline.edges_s, fill=True, color=_FIRST)
        _time(axes, float(timeline.edges_s[-1]))
        _amounts(axes, count, "rows/s")

    return _draw(draw, "rows per second over the run")


def draw_stages(timeline: Timeline) -> Element:
    """How many workers were busy with each stage, one upon the other."""

    def draw(axes: Axes) -> None:
        base = np.zeros(len(timeline.edges_s) - 1)
        for stage, busy in timeline.busy.items():
            top = base + busy
            axes.stairs(top, timeline.edges_s, baseline=base, fill=True, color=_STAGES[stage], label=stage)
            base = top
        _time(axes, float(timeline.edges_s[-1]))
        _amounts(axes, lambda busy: f"{busy:g}", "busy threads")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=5, fontsize=8, handlelength=1)

    return _draw(draw, "threads busy with each stage over the run")


def draw_memory(timeline: Timeline) -> Element:
    """The most that one process had resident, over the run."""

    def draw(axes: Axes) -> None:
        middles = (timeline.edges_s[:-1] + timeline.edges_s[1:]) / 2
        known = ~np.isnan(timeline.memory)
        axes.set_ylim(0, 1.15 * float(np.nanmax(timeline.memory, initial=1.0)))
        axes.plot(middles[known], timeline.memory[known], color=_FIRST, marker=".", linewidth=1.5)
        _time(axes, float(timeline.edges_s[-1]))
        _amounts(axes, of_bytes, "resident")

    return _draw(draw, "resident memory over the run")


def draw_durations(timeline: Timeline) -> Element:
    """How long shards took."""

    def draw(axes: Axes) -> None:
        axes.hist(timeline.durations_s, bins=min(DURATION_BINS, 2 + len(timeline.durations_s)), color=_FIRST)
        _time(axes, float(timeline.durations_s.max()))
        axes.set_xlabel("seconds for a shard")
        _amounts(axes, count, "shards", is_whole=True)

    return _draw(draw, "how long shards took")


def draw_histogram(now: ColumnProfile, before: ColumnProfile | None) -> Element:
    """Shares of a column's values, beside those of another run."""

    def draw(axes: Axes) -> None:
        axes.stairs(_shares(now), now.edges, fill=True, color=_FIRST, label="this run")
        if before is not None and before.edges:
            axes.stairs(_shares(before), before.edges, color=_SECOND, linewidth=1.5, label="before")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=2, fontsize=8, handlelength=1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        _amounts(axes, lambda share: f"{share:.3g}%", "of values")

    return _draw(draw, "histogram of a column")


def _shares(profile: ColumnProfile) -> np.ndarray:
    """float64[bins]: each bin's share of the values, in percent."""
    counts = np.array(profile.counts, float)
    shares: np.ndarray = 100 * counts / max(1.0, counts.sum())
    return shares


def _time(axes: Axes, end_s: float) -> None:
    axes.set_xlim(0, end_s)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _moment(value, end_s)))


def _moment(seconds: float, end_s: float) -> str:
    return f"{seconds:g} s" if end_s < 60 else duration(seconds)


def _amounts(axes: Axes, told: Callable[[float], str], label: str, *, is_whole: bool = False) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=is_whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))
    axes.set_ylabel(label)


def _draw(draw: Callable[[Axes], None], label: str) -> Element:
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.grid(axis="x", visible=False)
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _inlined(written.getvalue(), label, _VARIABLES)


def _inlined(svg: str, label: str, variables: Mapping[str, str]) -> Element:
    """A picture as an element of the page: its colours are the page's variables, its size the column's."""
    for colour, variable in variables.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]+", r"font-size: \1px", svg)
    root = fromstring(svg)
    pointed_at = set(re.findall(r"#(\w+)", svg))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if attributes.get("id") not in pointed_at:  # several pictures of a page would have the same ones
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update(attributes)
        element.tail = None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return root
