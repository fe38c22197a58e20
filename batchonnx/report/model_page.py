"""A model as a page: what it takes and gives, what it costs, how it was made, and its graph."""

from __future__ import annotations

from collections.abc import Iterator

from batchonnx.lifecycle.inspection import Inspection
from batchonnx.report.graph_view import draw_graph
from batchonnx.report.model_view import card_facts
from batchonnx.report.page import facts, heading, page, table
from batchonnx.report.text import count, of_bytes


def model_page(found: Inspection) -> str:
    """One HTML file."""
    name = found.card.signature.path.rpartition("/")[2]
    return page(name, _parts(found))


def _parts(found: Inspection) -> Iterator[str]:
    yield facts(card_facts(found))
    yield heading("Graph")
    yield draw_graph(found.outline)
    yield heading("Operators")
    flops = found.flops.by_operator if found.flops is not None else {}
    rows = [
        (name, count(n), count(flops[name]) if name in flops else "")
        for name, n in found.card.operators.items()
    ]
    yield table(("operator", "nodes", "operations a row"), rows)
    yield heading("Weights")
    yield table(("type", "size"), [(kind, of_bytes(size)) for kind, size in found.card.weights.items()])
