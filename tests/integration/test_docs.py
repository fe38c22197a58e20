"""What README and docs show is true: every example is run, every command and key exists."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.job import spec
from tests import models

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def shown_commands() -> Iterator[tuple[str, str]]:
    """Each line that calls batchonnx, in the pages' shell blocks and in the commands' own help."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                for part in line.split("&&"):
                    if re.match(r"\s*(\S*/)?batchonnx ", part):
                        yield page.name, part.strip()
    for name in ([], ["init"], ["plan"], ["run"], ["schema"], ["model"], ["model", "inspect"]):
        text = CliRunner().invoke(main, [*name, "--help"]).stdout
        for line in re.findall(r"^\s+(batchonnx .*?)(?:\s{2,}.*)?$", text, re.MULTILINE):
            yield f"{' '.join(name)} --help", line


@pytest.mark.parametrize(("where", "line"), sorted(set(shown_commands())))
def test_a_command_that_is_shown_exists_with_its_options(where: str, line: str) -> None:
    words = shlex.split(re.split(r"\s[|>#]", line)[0])[1:]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, line
        command, words = found, words[1:]
    if words and words != ["--help"]:
        command.make_context(command.name, list(words))


def test_the_readme_s_job_runs(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "job.yaml").write_text(text)
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    options = {LogisticRegression: {"zipmap": False}}
    model = to_onnx(
        LogisticRegression().fit(rows, rows[:, 0] > 0),
        initial_types=[("x", FloatTensorType([None, 3]))],
        options=options,
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    events = tmp_path / "events" / "day=2026-11-22"
    events.mkdir(parents=True)
    table = {
        "event_id": range(50),
        "amount": rows[:, 0],
        "age": pa.array(range(50), pa.int64()),
        "score": rows[:, 2],
        "country": ["DE", "US"] * 25,
    }
    pq.write_table(pa.table(table), events / "a.parquet")
    summary = api.run(tmp_path / "job.yaml", {"day": "2026-11-22"})
    assert summary.rows_in == 50
    assert 0 < summary.predicted < 26
    result = pq.read_table(tmp_path / "scores" / "day=2026-11-22", partitioning=None)
    assert result.column_names == ["event_id", "score", "label"]
    assert set(result["label"].to_pylist()) <= {"good", "bad"}


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "jobs" / "out" / "digits" / "_SUCCESS").exists()


def test_the_readme_s_own_model_and_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init`, `plan`, `run`, as they stand under "Your own model and data"."""
    models.linear(tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    table = pa.table({f"f{i}": np.zeros(10, np.float32) for i in range(3)})
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text().partition("## Your own model and data")[2]
    lines = re.findall(r"^batchonnx ([^#\n]*)", section, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["init", "plan", "run"]
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line))
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    "section", [spec.Model, spec.Input, spec.Feature, spec.Output, spec.Result, spec.Engine, spec.BytesWindow]
)
def test_every_key_of_the_job_file_is_explained(section: type[spec.Section]) -> None:
    text = (ROOT / "docs" / "job-file.md").read_text()
    for name, field in section.model_fields.items():
        assert re.search(rf"\b{field.alias or name}\b", text), f"{section.__name__}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:tests|jobs|docs)/[\w./-]+)`", text):
        is_made = target.startswith(("jobs/out", "jobs/models", "jobs/data"))
        assert is_made or (ROOT / target).exists(), target
