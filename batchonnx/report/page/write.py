"""A page from its facts: sections one after the other, in one file that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from xml.etree.ElementTree import Element

from batchonnx.report.page import columns, result, run
from batchonnx.report.page.gather import Facts
from batchonnx.report.page.html import as_bytes, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Even if something were to slip into the page, the browser would neither run nor fetch it."""


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
    style = tag("style")
    style.text = files("batchonnx.report.page").joinpath("style.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{name}: run {facts.manifest.run}"),
        style,
    )
    body = tag("body", tag("main", [section for section in sections if section is not None]))
    return as_bytes(tag("html", head, body, lang="en"))
