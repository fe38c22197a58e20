"""Text that is put into a page is text, whatever it holds."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from batchonnx.report.page.html import as_bytes, facts, table, tag
from batchonnx.report.text import printable

HOSTILE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</style><img src=x onerror=alert(1)>",
            '"><svg onload=alert(1)>',
            "' onmouseover='alert(1)",
            "]]><!--",
            "-->",
            "\x00\x1b[31m\ud800\u202e",
            "&lt;script&gt;",
        ]
    ),
)


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def seen(data: bytes) -> _Seen:
    parser = _Seen()
    parser.feed(data.decode())
    parser.close()
    return parser


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_becomes_an_element_or_an_attribute(one: str, two: str, three: str) -> None:
    page = tag("p", one, tag("b", two), three, tag("i", class_=one))
    found = seen(as_bytes(page))
    assert found.tags == ["p", "b", "i"]
    assert found.attributes == [("class", printable(one))]
    told = ("\n".join(map(printable, text.split("\n"))) for text in (one, two, three))
    assert found.text == "\n" + "".join(told) + "\n"


@given(st.lists(st.lists(HOSTILE, min_size=2, max_size=2), max_size=4))
def test_a_table_has_a_cell_for_each_text(rows: list[list[str]]) -> None:
    found = seen(as_bytes(table(("a", "b"), rows)))
    assert found.tags.count("td") == 2 * len(rows)
    assert set(found.tags) <= {"div", "table", "thead", "tr", "th", "tbody", "td"}


def test_what_isn_t_known_is_left_out() -> None:
    assert seen(as_bytes(facts((("a", "1"), ("b", None))))).text.strip() == "a1"
