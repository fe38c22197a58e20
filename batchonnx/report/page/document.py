"""Sections as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from xml.etree.ElementTree import Element

from batchonnx.report.page.html import as_bytes, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Even if something were to slip into the page, the browser would neither run nor fetch it."""


def document(title: str, sections: Iterable[Element | None]) -> bytes:
    """HTML, UTF-8: no script, no address that is fetched. Sections that are None are left out."""
    style = tag("style")
    style.text = files("batchonnx.report.page").joinpath("style.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        style,
    )
    body = tag("body", tag("main", [section for section in sections if section is not None]))
    return as_bytes(tag("html", head, body, lang="en"))
