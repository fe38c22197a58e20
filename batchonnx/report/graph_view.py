"""A model's graph, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from batchonnx.lifecycle.graph_outline import Arrow, Box, Outline
from batchonnx.report.page.html import tag
from batchonnx.report.text import count, shorten

WIDTH, HEIGHT = 132, 32
ACROSS, DOWN = 148, 62
MARGIN = 16

Corner = tuple[float, float]


def draw_graph(outline: Outline) -> Element:
    """Inputs above, outputs below; what is known of a box is shown as the pointer rests on it."""
    if not outline.boxes:
        return tag("p", f"The graph has {count(outline.nodes)} nodes: too many to draw.")
    lengths: dict[int, int] = {}
    for box in outline.boxes:
        lengths[box.layer] = max(lengths.get(box.layer, 0), box.place + 1)
    widest, deepest = max(lengths.values()), max(lengths) + 1
    corners = [
        (MARGIN + (box.place + (widest - lengths[box.layer]) / 2) * ACROSS, MARGIN + box.layer * DOWN)
        for box in outline.boxes
    ]
    shapes = [_arrow(arrow, corners) for arrow in outline.arrows]
    shapes += [_box(box, *corner) for box, corner in zip(outline.boxes, corners, strict=True)]
    return drawing(2 * MARGIN + widest * ACROSS, 2 * MARGIN + deepest * DOWN, shapes)


def drawing(width: int, height: int, shapes: Sequence[Element]) -> Element:
    """An SVG of that many pixels, which scrolls by itself."""
    box = f"0 0 {width} {height}"
    svg = tag("svg", shapes, class_="drawing", width=str(width), height=str(height), viewBox=box)
    return tag("div", svg, class_="scroll")


def _arrow(arrow: Arrow, corners: Sequence[Corner]) -> Element:
    (x, y), (end_x, end_y) = corners[arrow.start], corners[arrow.end]
    x, y, end_x = x + WIDTH / 2, y + HEIGHT, end_x + WIDTH / 2
    bend = max(18.0, (end_y - y) / 2)
    curve = f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {end_x:.0f} {end_y - bend:.0f} {end_x:.0f} {end_y:.0f}"
    return tag("path", tag("title", arrow.name), d=curve)


def _box(box: Box, x: float, y: float) -> Element:
    at = {"x": f"{x:.0f}", "y": f"{y:.0f}"}
    frame = tag("rect", class_=box.kind, width=str(WIDTH), height=str(HEIGHT), rx="4", **at)
    lines = [tag("text", shorten(box.title, 18), x=f"{x + 7:.0f}", y=f"{y + 14:.0f}")]
    if box.details:
        told = _tail(box.details[0], 20)
        lines.append(tag("text", told, class_="small", x=f"{x + 7:.0f}", y=f"{y + 26:.0f}"))
    return tag("g", tag("title", "\n".join((box.title, *box.details))), frame, lines)


def _tail(words: str, width: int) -> str:
    """At most so many characters: names of nodes begin with their path, and differ in the end."""
    return words if len(words) <= width else "…" + words[1 - width :]
