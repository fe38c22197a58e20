"""A page to look at: one file that loads nothing, runs nothing and shows foreign text as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #1c2430; background: #fff; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; }
td, th { padding: .2em 1em .2em 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .95em; overflow-wrap: anywhere; } .drawing { overflow: auto; border: 1px solid #cfd6df; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2430; } svg .small { font-size: 10px; fill: #5a6675; }
.bar { fill: #4a7fb5; } .input { fill: #dcebd7; } .output { fill: #f6e3c5; } .node { fill: #e6ecf4; }
svg rect { stroke: #8c99a8; stroke-width: .7; } svg path { fill: none; stroke: #9aa5b1; stroke-width: .8; }
""".strip()

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document. parts: HTML of the body, in order, made by the functions here."""
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    head += f"<title>{text(title)}</title><style>{_STYLE}</style>"
    body = "\n".join((f"<h1>{text(title)}</h1>", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def heading(title: str) -> str:
    """A section's."""
    return f"<h2>{text(title)}</h2>"


def paragraph(words: str) -> str:
    """Plain words."""
    return f"<p>{text(words)}</p>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and what is to be said of them."""
    cells = (f"<tr><th>{text(label)}</th><td><code>{text(told)}</code></td></tr>" for label, told in rows)
    return f"<table>{''.join(cells)}</table>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(_cell(cell, is_number=place > 0) for place, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(told: str, *, is_number: bool) -> str:
    return f'<td class="n">{text(told)}</td>' if is_number else f"<td>{text(told)}</td>"


def drawing(width: float, height: float, shapes: Iterable[str]) -> str:
    """An SVG of that many pixels."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<div class="drawing"><svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(shapes)}</svg></div>'
    )


def text(words: str) -> str:
    """Foreign text, as text: without control characters, and nothing in it is markup."""
    return escape("".join(c if c.isprintable() else " " for c in words))
