"""Values are put into a job file's text, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.errors import JobFileError
from batchonnx.job.edit import set_in_file, set_values

VALUES = {"workers": 2, "batch_rows": 64}

CASES = {
    "no section": "model: a  # why\n",
    "no line break at the end": "model: a",
    "in braces": "engine: {name: local}  # here\nmodel: {path: '{{ day }}.onnx'}\n",
    "a block": "engine:\n  # how many\n  workers: 4   # four\n  name: local\nmodel: a\n",
    "all there": "engine:\n    batch_rows: auto\n    # x\n    workers: auto\n",
    "nothing in it": "engine:   # later\nmodel: a\n",
    "empty braces": "engine: {}\nmodel: b\n",
    "quoted": "engine: {'workers': 'auto', \"name\": local}\n",
    "wide letters": "name: 'zählt 😀'\nengine:\n  name: local\n",
    "Windows": "name: a\r\nengine:\r\n  name: local # x\r\nkeep: [a]\r\n",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_the_values_are_set_and_every_other_line_stays(text: str) -> None:
    changed = set_values(text, "engine", VALUES, "job.yaml")
    before = yaml.safe_load(text.replace("{{ day }}", "day"))
    expected = {**before, "engine": {**(before.get("engine") or {}), **VALUES}}
    assert yaml.safe_load(changed.replace("{{ day }}", "day")) == expected
    kept = [line for line in text.splitlines() if "engine" not in line and "workers" not in line]
    assert [line for line in kept if "batch_rows" not in line and line not in changed.splitlines()] == []
    assert all(
        part in changed
        for part in ("# why", "# here", "# how many", "# four", "# x", "# later")
        if part in text
    )
    assert set_values(changed, "engine", VALUES, "job.yaml") == changed


@given(st.permutations(["name: local", "workers: 3", "# said", "batch_rows: auto"]), st.integers(1, 8))
def test_a_block_is_changed_whatever_its_order_and_indent(lines: list[str], indent: int) -> None:
    text = "engine:\n" + "".join(f"{' ' * indent}{line}\n" for line in lines) + "model: a\n"
    changed = set_values(text, "engine", VALUES, "job.yaml")
    assert yaml.safe_load(changed) == {"engine": {"name": "local", **VALUES}, "model": "a"}
    assert changed.count("\n") == text.count("\n")
    assert "# said" in changed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &e {name: local}\nengine: *e\n", "an alias"),
        ("engine: {batch_rows: {{ n }}}\n", "{{ n }}"),
        ("{model: a}\n", "a file in braces"),
    ],
)
def test_what_belongs_to_others_is_left_to_the_user(text: str, found: str) -> None:
    with pytest.raises(JobFileError) as caught:
        set_values(text, "engine", VALUES, "job.yaml")
    (problem,) = caught.value.problems
    assert problem.facts["found"] == found
    assert "batch_rows: 64" in problem.fix


def test_a_file_keeps_its_mark_and_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: a\n")
    path.chmod(0o640)
    set_in_file(path, "engine", VALUES)
    assert path.read_bytes() == b"\xef\xbb\xbfmodel: a\n\nengine:\n  workers: 2\n  batch_rows: 64\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["job.yaml"]
