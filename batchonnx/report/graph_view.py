"""A model's graph, drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchonnx.lifecycle.graph_outline import Arrow, Box, Outline
from batchonnx.report.page import drawing, paragraph, text
from batchonnx.report.text import count, shorten

WIDTH, HEIGHT = 132, 32
ACROSS, DOWN = 148, 62
MARGIN = 16


def draw_graph(outline: Outline) -> str:
    """HTML: inputs above, outputs below; what is known of a box is shown as the pointer rests on it."""
    if not outline.boxes:
        return paragraph(f"The graph has {count(outline.nodes)} nodes: too many to draw.")
    widest = max(box.place for box in outline.boxes) + 1
    deepest = max(box.layer for box in outline.boxes) + 1
    lengths: dict[int, int] = {}
    for box in outline.boxes:
        lengths[box.layer] = max(lengths.get(box.layer, 0), box.place + 1)
    corners = [
        (MARGIN + (box.place + (widest - lengths[box.layer]) / 2) * ACROSS, MARGIN + box.layer * DOWN)
        for box in outline.boxes
    ]
    shapes = [_arrow(arrow, corners) for arrow in outline.arrows]
    shapes += [_box(box, *corner) for box, corner in zip(outline.boxes, corners, strict=True)]
    return drawing(2 * MARGIN + widest * ACROSS, 2 * MARGIN + deepest * DOWN, shapes)


def _arrow(arrow: Arrow, corners: Sequence[tuple[float, float]]) -> str:
    (x, y), (end_x, end_y) = corners[arrow.start], corners[arrow.end]
    x, y, end_x = x + WIDTH / 2, y + HEIGHT, end_x + WIDTH / 2
    bend = max(18.0, (end_y - y) / 2)
    curve = f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {end_x:.0f} {end_y - bend:.0f} {end_x:.0f} {end_y:.0f}"
    return f'<path d="{curve}"><title>{text(arrow.name)}</title></path>'


def _tail(words: str, width: int) -> str:
    """At most so many characters: names of nodes begin with their path, and differ in the end."""
    return words if len(words) <= width else "…" + words[1 - width :]


def _box(box: Box, x: float, y: float) -> str:
    return "".join(_box_parts(box, x, y))


def _box_parts(box: Box, x: float, y: float) -> Iterator[str]:
    told = "\n".join(text(line) for line in (box.title, *box.details))
    yield f"<g><title>{told}</title>"
    yield f'<rect class="{box.kind}" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
    yield f'<text x="{x + 7:.0f}" y="{y + 14:.0f}">{text(shorten(box.title, 18))}</text>'
    if box.details:
        first = text(_tail(box.details[0], 24))
        yield f'<text class="small" x="{x + 7:.0f}" y="{y + 26:.0f}">{first}</text>'
    yield "</g>"
