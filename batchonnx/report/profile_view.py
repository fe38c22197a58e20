"""A model's profile: as text with bars, and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from batchonnx.lifecycle.profile import OperatorTime, ProfileReport
from batchonnx.report.graph_view import drawing
from batchonnx.report.page.document import document
from batchonnx.report.page.html import facts, table, tag
from batchonnx.report.text import count, of_bytes, printable, shorten

SHOWN = 15
"""Operators and nodes in the text; the page and JSON have all of them."""

BAR = 24
"""Characters of the longest bar."""


def format_profile(found: ProfileReport) -> str:
    """The slowest operators and nodes, in a screenful."""
    return "\n".join(printable(line) for line in _lines(found))


def profile_page(found: ProfileReport) -> bytes:
    """One HTML file with a drawing of the operators' shares, and all nodes."""
    name = f"Profile of {found.model.rpartition('/')[2]}"
    rows = [
        (n.name, n.operator, n.provider, _time(n.seconds), f"{n.calls:g}", of_bytes(n.bytes))
        for n in found.nodes
    ]
    sections = [
        tag("h1", name),
        facts(_facts(found)),
        tag("h2", "Operators"),
        _bars(found.operators),
        tag("h2", "Nodes"),
        table(("node", "operator", "provider", "time", "runs", "output"), rows),
    ]
    return document(name, sections)


def _lines(found: ProfileReport) -> Iterator[str]:
    yield f"{found.model}"
    yield from (f"  {label:<8} {told}" for label, told in _facts(found))
    width = max((len(one.operator) for one in found.operators[:SHOWN]), default=0)
    most = max((one.share for one in found.operators), default=0.0) or 1.0
    yield ""
    for one in found.operators[:SHOWN]:
        bar = "█" * max(1, round(BAR * one.share / most))
        nodes = f"{count(one.nodes)} node{'s' * (one.nodes != 1)}"
        where = "" if one.provider == "CPUExecutionProvider" else f"  {one.provider}"
        taken = f"{one.share:>6.1%}  {_time(one.seconds):>9}"
        yield f"  {one.operator:<{width}}  {taken}  {bar:<{BAR}}  {nodes}{where}"
    if len(found.operators) > SHOWN:
        yield f"  … {len(found.operators) - SHOWN} more operators"
    yield ""
    yield "  slowest nodes"
    for node in found.nodes[:SHOWN]:
        yield f"  {_time(node.seconds):>9}  {node.operator:<{width}}  {shorten(node.name, 70)}"


def _facts(found: ProfileReport) -> list[tuple[str, str]]:
    machine = found.machine
    placed: dict[str, int] = {}
    for one in found.operators:
        placed[one.provider] = placed.get(one.provider, 0) + one.nodes
    return [
        ("sha256", found.sha256),
        ("rows", f"{count(found.rows)} in each call, {found.source}"),
        ("call", f"{_time(found.call_s)}, {_time(found.between_s)} of it between nodes"),
        ("taken", f"{count(found.calls)} calls, {found.threads} thread{'s' * (found.threads != 1)}"),
        ("placed", ", ".join(f"{provider} {count(nodes)} nodes" for provider, nodes in placed.items())),
        ("on", f"{machine.cpu}, {machine.cores} cores, onnxruntime {machine.onnxruntime}"),
    ]


def _bars(operators: Sequence[OperatorTime]) -> Element:
    most = max((one.share for one in operators), default=0.0) or 1.0
    shapes = []
    for number, one in enumerate(operators):
        top, width = 8 + 22 * number, max(1.0, 420 * one.share / most)
        told = f"{one.share:.1%}, {_time(one.seconds)}, {count(one.nodes)} nodes"
        shapes += [
            tag("text", shorten(one.operator, 26), x="8", y=str(top + 12)),
            tag("rect", class_="share", x="200", y=str(top), width=f"{width:.1f}", height="16"),
            tag("text", told, x=f"{206 + width:.1f}", y=str(top + 12)),
        ]
    return drawing(860, 16 + 22 * len(operators), shapes)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
