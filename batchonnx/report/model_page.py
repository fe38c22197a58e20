"""A model as a page: what it takes and gives, what it costs, how it was made, and its graph."""

from __future__ import annotations

from batchonnx.lifecycle.inspection import Inspection
from batchonnx.report.graph_view import draw_graph
from batchonnx.report.model_view import card_facts
from batchonnx.report.page.document import document
from batchonnx.report.page.html import facts, table, tag
from batchonnx.report.text import count, of_bytes


def model_page(found: Inspection) -> bytes:
    """One HTML file."""
    name = found.card.signature.path.rpartition("/")[2]
    flops = found.flops.by_operator if found.flops is not None else {}
    operators = [
        (operator, count(number), count(flops[operator]) if operator in flops else "")
        for operator, number in found.card.operators.items()
    ]
    weights = [(kind, of_bytes(size)) for kind, size in found.card.weights.items()]
    sections = [
        tag("h1", name),
        facts(card_facts(found)),
        tag("h2", "Graph"),
        draw_graph(found.outline),
        tag("h2", "Operators"),
        table(("operator", "nodes", "operations a row"), operators),
        tag("h2", "Weights"),
        table(("type", "size"), weights),
    ]
    return document(name, sections)
