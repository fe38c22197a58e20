"""What `init` writes is read back as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchonnx.job.document import read_document
from batchonnx.planning.guess import _yaml

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
numeral = st.from_regex(r"[-+]?(0o)?[0-9_.]{1,4}([eE][-+]?[0-9]{1,2})?", fullmatch=True)


@given(st.lists(names | numeral, min_size=1, max_size=5))
@example(["1e3", "0o17", "1_000", ".5", "-.inf", "no", "null", "~", "a: b", "a #b", "12:30", "2026-11-22"])
def test_any_column_name_is_text_again(columns: list[str]) -> None:
    document = read_document(
        f"keep: {_yaml(columns, flow=True)}\nname: {_yaml(columns[0])}\n", {}, "job.yaml"
    )
    assert not document.problems
    assert document.root is not None
    entries = document.root.value
    assert isinstance(entries, dict)

    assert [item.value for item in entries["keep"].value] == columns
    assert entries["name"].value == columns[0]


@pytest.mark.parametrize("name", ["f0", "amount (EUR)", "größe"])
def test_a_plain_name_stays_without_quotes(name: str) -> None:
    assert _yaml(name) == name
