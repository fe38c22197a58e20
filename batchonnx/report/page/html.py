"""HTML as a tree of elements: text that is put into it is text, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from batchonnx.report.text import printable

Child = Element | str | None


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: str) -> Element:
    """An element. children: elements, foreign text, lists of both; None is left out. class_ is `class`.

    Text is made printable: no control characters, none that turn the direction of writing.
    """
    made = Element(
        name, {key.rstrip("_").replace("_", "-"): printable(value) for key, value in attributes.items()}
    )
    for child in children:
        for one in [child] if child is None or isinstance(child, str | Element) else child:
            _add(made, one)
    return made


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], kind: str = "") -> Element:
    """A table that scrolls by itself where the screen is narrow."""
    body = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    heads = [tag("th", cell, scope="col") for cell in head]
    top = tag("thead", tag("tr", heads)) if heads else None
    whole = tag("table", top, tag("tbody", body), class_=kind)
    return tag("div", whole, class_="scroll")


def facts(pairs: Iterable[tuple[str, Child]]) -> Element:
    """Names and what is told of each; those that hold None are left out."""
    cells = [part for name, told in pairs if told is not None for part in (tag("dt", name), tag("dd", told))]
    return tag("dl", cells)


def as_bytes(root: Element) -> bytes:
    """A document, UTF-8."""
    written: bytes = tostring(root, encoding="utf-8", method="html")
    return b"<!doctype html>\n" + written + b"\n"


def _add(parent: Element, child: Child) -> None:
    if child is None:
        return
    if isinstance(child, Element):
        parent.append(child)
        return
    text = "\n".join(map(printable, child.split("\n")))
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
