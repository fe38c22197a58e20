"""Running jobs every night, as docs/operations.md shows it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchonnx.cli import main

ROOT = Path(__file__).parents[2]


def test_the_commands_of_the_page_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    (prices,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/rehearsals.md").read_text(), re.M | re.S)
    (tmp_path / "prices.yaml").write_text(prices)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["run", "jobs/score.yaml", "--quiet"]).exit_code == 0
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("batchonnx ")]
    assert lines
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
