"""A page from its facts: sections one after the other."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from batchonnx.report.page import columns, result, run
from batchonnx.report.page.document import document
from batchonnx.report.page.gather import Facts


def write_page(facts: Facts) -> bytes:
    """The page as HTML, UTF-8: no script, no address that is fetched."""
    name = str(facts.plan.job.get("name") or "batchonnx")
    sections: list[Element | None] = [
        *result.head(facts),
        *run.pace(facts),
        *columns.distributions(facts),
        *result.quarantine(facts),
        *run.model(facts),
        *run.circumstances(facts),
        *run.again(facts),
    ]
    return document(f"{name}: run {facts.manifest.run}", sections)
