"""What README and docs show is true: every example is run, every command and key exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import click
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from batchonnx import api, errors
from batchonnx.cli import main
from batchonnx.cluster.jobs import SubmittedJob
from batchonnx.doctor.symptom import Symptom
from batchonnx.job import spec
from batchonnx.job.load import job_from_dict
from batchonnx.ledger import records
from batchonnx.ledger.lease import hold_lease
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.output import Cleared
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.convert import Usability
from batchonnx.lifecycle.export import Exported
from batchonnx.lifecycle.gates import Miss
from batchonnx.lifecycle.machine import Machine
from batchonnx.lifecycle.parity import Parity
from batchonnx.lifecycle.profile import ProfileReport
from batchonnx.lifecycle.provenance import Step
from batchonnx.lifecycle.speed import Speed
from batchonnx.lifecycle.validate import Check, Validation
from batchonnx.parts.layout import Layout
from batchonnx.proof.diff.diff import Difference
from batchonnx.proof.explain import Origin
from batchonnx.proof.history import ListedRun
from batchonnx.proof.verify import Proof
from batchonnx.rehearsal.chaos.drill import Drill
from batchonnx.rehearsal.forecast import Crew, Forecast
from batchonnx.rehearsal.tune.tune import Tuning
from batchonnx.report.event_lines import AnyLine, Line, ProgressLine, RunStartedLine, ShardCommittedLine
from batchonnx.report.plan_view import plan_as_dict
from batchonnx.runtime.session import open_model
from batchonnx.schedule.run_tick import TickResult
from batchonnx.scoring.progress import RunSummary
from batchonnx.scoring.quarantine import quarantine_schema
from batchonnx.watch.meters import METRICS
from tests import models
from tests.chaos.bucket import make_input, make_job
from tests.integration.conftest import minilm_folder
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The names of all commands, those of a group included."""
    context = click.Context(main)
    found: list[list[str]] = []
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.list_commands(context)]
    return found


def section(page: Path, title: str) -> str:
    """A page's text between a heading and the next one of its level."""
    _, found, rest = page.read_text().partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def table(page: Path, mark: str) -> list[str]:
    """What stands in backticks in the first column of the table behind `<!-- mark -->`, in order."""
    _, found, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    assert found, mark
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def shown_commands() -> Iterator[tuple[str, str]]:
    """Each line that calls batchonnx, in the pages' shell blocks and in the commands' own help."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                for part in line.split("&&"):
                    if re.match(r"\s*(\S*/)?batchonnx ", part):
                        yield page.name, part.strip()
    for name in [[], *commands()]:
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
    text, _ = blocks(ROOT / "README.md", "yaml")
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
    columns = {
        "event_id": range(50),
        "amount": rows[:, 0],
        "age": pa.array(range(50), pa.int64()),
        "score": rows[:, 2],
        "country": ["DE", "US"] * 25,
    }
    pq.write_table(pa.table(columns), events / "a.parquet")
    summary = api.run(tmp_path / "job.yaml", {"day": "2026-11-22"})
    assert summary.rows_in == 50
    assert 0 < summary.predicted < 26
    result = pq.read_table(tmp_path / "scores" / "day=2026-11-22", partitioning=None)
    assert result.column_names == ["event_id", "score", "label"]
    assert set(result["label"].to_pylist()) <= {"good", "bad"}


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    monkeypatch.chdir(tmp_path)
    code, _ = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "jobs" / "out" / "digits" / "_SUCCESS").exists()


def test_the_readme_s_buckets_are_read_and_written(
    tmp_path: Path, s3_tls: S3Server, use_store: UseStore
) -> None:
    """Its job from bucket to bucket, over TLS, and the lines that read the result."""
    use_store(s3_tls)
    _, text = blocks(ROOT / "README.md", "yaml")
    _, code = blocks(ROOT / "README.md", "python")
    text = text.replace("https://store.example.com", s3_tls.endpoint)
    text = text.replace("ca.pem", str(s3_tls.access.ca_file))
    text = text.replace("eu-1", "us-east-1").replace("s3://models/", "s3://lake/models/")
    store = ObjectFolder("s3://lake")
    store.put("models/events/model.onnx", models.linear(tmp_path / "model.onnx").read_bytes())
    rows = pa.table({f"f{i}": np.zeros(10, np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "a.parquet")
    store.put("events/day=2026-11-22/a.parquet", (tmp_path / "a.parquet").read_bytes())
    job = f"{text}\nfeatures: {{x: {{columns: [f0, f1, f2]}}}}\n"
    (tmp_path / "job.yaml").write_text(job)
    assert api.run(tmp_path / "job.yaml", {"day": "2026-11-22"}).predicted == 10
    seen: dict[str, pa.Table] = {}
    exec(compile(code, "README.md", "exec"), seen)
    assert seen["rows"].num_rows == 10


def test_duckdb_reads_exactly_the_published_parts_by_the_lines_that_are_shown(
    s3: S3Server, use_store: UseStore, tmp_path: Path
) -> None:
    """Spark's line isn't run: it isn't installed with the tests."""
    use_store(s3)
    make_input(tmp_path)
    api.run(make_job(tmp_path, "s3://scores/events"))
    ObjectFolder("s3://scores/events").put("part-000099-00000000.parquet", b"a stray")
    manifest, in_duckdb, _ = blocks(ROOT / "docs/storage.md", "python")
    seen: dict[str, Any] = {}
    exec(compile(manifest + in_duckdb, "storage.md", "exec"), seen)
    read = seen["rows"].to_arrow_table().sort_by("id")
    assert read.equals(api.dataset("s3://scores/events").to_table().sort_by("id"))


def test_the_readme_s_own_model_and_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init`, `plan`, `run`, as they stand under "Your own model and data"."""
    models.linear(tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    rows = pa.table({f"f{i}": np.zeros(10, np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "data" / "a.parquet")
    monkeypatch.chdir(tmp_path)
    text = section(ROOT / "README.md", "Your own model and data")
    lines = re.findall(r"^batchonnx ([^#\n]*)", text, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["init", "plan", "run"]
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line))
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    "model",
    [
        spec.Job,
        spec.Model,
        spec.Input,
        spec.Feature,
        spec.Output,
        spec.Detect,
        spec.ChainedModel,
        spec.Result,
        spec.Engine,
        spec.Errors,
        spec.Check,
        spec.Dependencies,
        spec.BytesWindow,
        spec.Image,
        spec.Audio,
        spec.State,
        spec.Storage,
        spec.Table,
        spec.Schedule,
        spec.Metrics,
        spec.Notify,
        spec.Notice,
    ],
)
def test_every_key_of_the_job_file_is_explained(model: type[spec.Section]) -> None:
    text = (ROOT / "docs" / "job-file.md").read_text()
    for name, field in model.model_fields.items():
        assert re.search(rf"\b{field.alias or name}\b", text), f"{model.__name__}.{name}"


@pytest.mark.parametrize("text", blocks(ROOT / "docs" / "job-file.md", "yaml"))
def test_a_piece_of_a_job_is_one_that_a_job_may_have(text: str) -> None:
    piece = yaml.safe_load(text)
    base = {"input": {"path": "in"}, "output": {"path": "out"}}
    base |= {} if "models" in piece else {"model": {"path": "m.onnx"}}
    assert piece.keys() <= job_from_dict(base | piece).job.model_fields_set


def test_what_the_readme_shows_is_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what differs from run to run: times, cores, digests and the folder."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    monkeypatch.chdir(tmp_path)
    answers = section(ROOT / "README.md", "When something goes wrong")
    lines = ["batchonnx run jobs/score.yaml", *re.findall(r"^batchonnx .*$", answers, re.MULTILINE)]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    texts = [text for language, text in fences if not language]
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, done.stderr
        if texts:
            told, found = told_alike(texts.pop(0)), told_alike(done.stdout.replace(f"{tmp_path}/", ""))
            assert found[: len(told)] == told, line
    assert not texts


def told_alike(text: str) -> list[str]:
    """The lines up to an ellipsis of its own, without what differs from run to run."""
    lines = text.partition("\n            …\n")[0].splitlines()
    varying = r"  (time|engine|stages|scored|deep|output|parts) .*"
    return [re.sub(r"part-(\d+)-\w{8}", r"part-\1", re.sub(varying, r"  \1", line)) for line in lines]


RECORDS = ROOT / "docs" / "records.md"


@pytest.mark.parametrize(
    "kind",
    [
        Layout,
        *(k for k in vars(records).values() if is_dataclass(k) and k.__module__ == records.__name__),
    ],
)
def test_every_key_of_a_record_is_explained(kind: type) -> None:
    has_format = kind in (
        records.PlanRecord,
        records.Probe,
        records.Commit,
        records.Manifest,
        records.Compacted,
    )
    keys = [field.name for field in fields(kind)]
    assert table(RECORDS, f"keys: {kind.__name__}") == ["format"] * has_format + keys


def test_the_format_s_version_is_the_one_explained() -> None:
    assert f"`FORMAT_VERSION` is {records.FORMAT_VERSION}." in RECORDS.read_text()


def test_what_else_lies_beside_a_result_is_explained(tmp_path: Path) -> None:
    with hold_lease(tmp_path / "out", lambda: None):
        lease = json.loads((tmp_path / ".out.batchonnx-lease").read_text())
    assert table(RECORDS, "keys: lease") == list(lease)
    assert table(RECORDS, "columns: quarantine") == quarantine_schema(pa.schema([])).names
    models.linear(tmp_path / "model.onnx")
    rows = pa.table({f"f{i}": np.zeros(10, np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "in.parquet")
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
    }
    api.run(job_from_dict(job, folder=tmp_path))
    out = tmp_path / "out"
    (part,) = out.glob("*.parquet")
    assert re.fullmatch(r"part-\d{6}-[0-9a-f]{8}\.parquet", part.name)
    found = {key.decode() for key in pq.read_metadata(part).metadata} - {"ARROW:schema"}
    assert set(table(RECORDS, "footer")) == found
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {part.name}
    text = RECORDS.read_text()
    assert all(f"scores/{name}" in text for name in names), names


CLI = ROOT / "docs" / "cli.md"


@pytest.mark.parametrize(
    "kind", [RunSummary, Proof, Origin, Cleared, SubmittedJob, TickResult, Symptom, ListedRun, Difference]
)
def test_every_key_of_a_command_s_json_is_explained(kind: type) -> None:
    assert set(table(CLI, f"keys: {kind.__name__}")) == {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", [RunStartedLine, ProgressLine, ShardCommittedLine])
def test_every_key_of_an_event_is_explained(kind: type) -> None:
    common = set(table(CLI, "keys: Line"))
    assert set(table(CLI, f"keys: {kind.__name__}")) == {field.name for field in fields(kind)} - common
    assert common == {field.name for field in fields(Line)} | {"event"}
    told = section(CLI, "Events")
    assert set(get_args(AnyLine)) <= {one for one in get_args(AnyLine) if f"`{one.event}`" in told}


def test_every_metric_is_explained() -> None:
    assert sorted(table(ROOT / "docs" / "operations.md", "metrics")) == sorted(METRICS)


@pytest.mark.parametrize("kind", [Forecast, Crew, Tuning, Drill])
def test_every_key_of_a_rehearsal_s_json_is_explained(kind: type) -> None:
    page = ROOT / "docs" / "rehearsals.md"
    assert set(table(page, f"keys: {kind.__name__}")) == {field.name for field in fields(kind)}


MODELS = ROOT / "docs" / "models.md"


def test_every_question_about_a_model_and_its_answer_s_keys_are_explained() -> None:
    own = {field.name for field in fields(Validation)} | {"verdict"}
    assert set(table(MODELS, "keys: Validation")) >= own
    assert set(table(MODELS, "keys: ProfileReport")) >= {field.name for field in fields(ProfileReport)}
    assert Check.__doc__ is not None
    asked = re.findall(r'"(\w+)"', Check.__doc__.partition("level:")[0])
    assert re.findall(r"^\| `(\w+)` \|", section(MODELS, "validate"), re.MULTILINE) == asked


def test_the_looks_at_a_model_that_are_shown_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model.onnx", "candidate.onnx"):
        models.linear(tmp_path / name)
    values = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    pq.write_table(pa.table({f"f{i}": values[:, i] for i in range(3)}), tmp_path / "in.parquet")
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    monkeypatch.chdir(tmp_path)
    titles = ("inspect", "profile", "validate", "compare", "run")
    for line in (found for t in titles for found in re.findall(r"^batchonnx .*", section(MODELS, t), re.M)):
        # Whether one is as fast as the other, which it is, is up to this moment of the machine.
        line = line.replace("--min-speedup 1", "--min-speedup 0.1")
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
    (settings,) = (yaml.safe_load(text) for text in blocks(MODELS, "yaml"))
    with (tmp_path / "rows.yaml").open("a") as rows:
        yaml.safe_dump(settings, rows)
    assert api.run(tmp_path / "rows.yaml", overwrite=True).predicted == 40
    for made in (
        "model.html",
        "profile.html",
        "candidate.onnx.comparison.md",
        "candidate.onnx.comparison.json",
    ):
        assert (tmp_path / made).stat().st_size > 0


def shown_exports() -> list[str]:
    return re.findall(r"^batchonnx .*", section(MODELS, "export"), re.MULTILINE)


def test_the_export_that_is_shown_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightgbm

    rows = np.random.default_rng(0).integers(0, 9, (200, 2)).astype(np.float32)
    data = lightgbm.Dataset(rows, rows[:, 0] > 4, feature_name=["hour", "distance"])
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
    lightgbm.train(settings, data, 3).save_model(tmp_path / "flights.txt")
    pq.write_table(pa.table({"hour": rows[:, 0], "distance": rows[:, 1]}), tmp_path / "flights.parquet")
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in shown_exports() if "flights.txt" in line]
    done = CliRunner().invoke(main, shlex.split(line)[1:])
    assert done.exit_code == 0, done.output
    assert api.plan(tmp_path / "models" / "flights.job.yaml").rows == 200
    assert set(table(MODELS, "keys: Exported")) >= {field.name for field in fields(Exported)}


@pytest.mark.frameworks
def test_the_exports_of_networks_that_are_shown_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(minilm_folder(), tmp_path / "minilm")
    (code,) = blocks(MODELS, "python")
    (tmp_path / "net.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    lines = [line for line in shown_exports() if "flights.txt" not in line]
    assert len(lines) == 2
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
    net, minilm = (open_model(f"models/{name}").signature for name in ("net.onnx", "minilm/model.onnx"))
    assert [str(spec) for spec in (*net.inputs, *net.outputs)] == [
        "x float32[batch, 28]",
        "scores float32[batch, 2]",
    ]
    assert minilm.inputs[0].name == "input_ids"
    assert (tmp_path / "models" / "minilm" / "tokenizer.json").is_file()


def test_the_models_that_are_shown_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.network(tmp_path / "model.onnx")
    values = np.random.default_rng(0).standard_normal((80, models.NETWORK_WIDTH)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), models.NETWORK_WIDTH)
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet")
    job = {"model": {"path": "model.onnx"}, "input": {"path": "in.parquet"}, "output": {"path": "out"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    monkeypatch.chdir(tmp_path)
    own = {"Softmax": "Tanh", "/head/MatMul": "last"}  # what the model of this test has
    for title in ("optimize", "quantize", "convert"):
        lines = re.findall(r"^batchonnx .*", section(MODELS, title), re.MULTILINE)
        assert len(lines) >= 3
        for line in lines:
            words = [own.get(word, word) for word in shlex.split(line)[1:]]
            # Whether so small a model gets faster is up to this moment of the machine.
            done = CliRunner().invoke(main, [*words, "--min-speedup", "0", "--batch", "8"])
            assert done.exit_code == 0, f"{line}: {done.output}"
            assert (tmp_path / words[3]).exists(), line


def test_every_key_of_a_comparison_and_its_figures_is_explained() -> None:
    own = {field.name for field in fields(Comparison)} | {"passed", "verdict"}
    assert set(table(MODELS, "keys: Comparison")) >= own
    assert table(MODELS, "keys: Usability") == [field.name for field in fields(Usability)]
    assert set(table(MODELS, "keys: Step")) >= {field.name for field in fields(Step)}
    text = MODELS.read_text()
    inner = {field.name for kind in (Parity, Speed, Machine, Miss) for field in fields(kind)}
    assert inner - {"name", "rows", "values", "top_k"} <= set(re.findall(r"`(\w+)`", text))


def test_every_key_of_a_plan_s_json_is_explained() -> None:
    text = CLI.read_text().partition("`plan --json`:")[2].partition("\n\n")[0]
    told = plan_as_dict(api.plan(ROOT / "jobs" / "score.yaml"))
    inner = [*told["model"], *told["input"]]  # type: ignore[misc]
    assert {*told, *inner} <= set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("name", commands(), ids=" ".join)
def test_every_command_and_option_is_explained(name: list[str]) -> None:
    text, command, context = CLI.read_text(), main, click.Context(main)
    for word in name:
        command = command.get_command(context, word)  # type: ignore[assignment]
    assert isinstance(command, click.Group) or f"`batchonnx {' '.join(name)}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert re.search(rf"`{re.escape(option)}[` ]", text), option


def test_every_exit_code_is_explained() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", CLI.read_text(), re.MULTILINE)}
    assert told == codes | {0, 1}


def test_files_in_quarantine_are_read_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.identity(tmp_path / "model.onnx", "int64", ["n"])
    pq.write_table(pa.table({"code": pa.array([1, None, 3], pa.int64())}), tmp_path / "in.parquet")
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "code"}},
        "output": {"path": "scores"},
        "errors": {"max_bad_rows": 1},
    }
    api.run(job_from_dict(job, folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    for page in (ROOT / "README.md", RECORDS):
        (query,) = blocks(page, "sql")
        ((file, row, error, *_),) = duckdb.sql(query).fetchall()
        assert (file, row) == (str(tmp_path / "in.parquet"), 1)
        assert "null" in error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:tests|jobs|docs)/[\w./-]+)`", text):
        is_made = target.startswith(("jobs/out", "jobs/models", "jobs/data"))
        assert is_made or (ROOT / target).exists(), target


def test_the_scheduled_job_that_is_shown_runs_with_every_command_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "schedules.md"
    (text,) = blocks(page, "yaml")
    (tmp_path / "job.yaml").write_text(text)
    models.linear(tmp_path / "model.onnx")
    for day in range(19, 23):
        folder = tmp_path / "events" / f"day=2026-11-{day}"
        folder.mkdir(parents=True)
        columns = {name: np.zeros(5, np.float32) for name in ("amount", "age", "score")}
        pq.write_table(pa.table({"event_id": range(5), **columns}), folder / "a.parquet")
    monkeypatch.chdir(tmp_path)
    told = {}
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            done = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
            assert done.exit_code in (0, 3), f"{line}: {done.stderr}"
            told[" ".join(line.split()[1:3])] = (done.exit_code, done.stdout)
    assert told["run job.yaml"][0] == told["backfill job.yaml"][0] == told["schedule render"][0] == 0
    assert re.findall(r"^(\S+)  (\w+)", told["backfill job.yaml"][1], re.MULTILINE) == [
        ("2026-11-19", "published"),
        ("2026-11-20", "published"),
        ("2026-11-21", "published"),
        ("2026-11-22", "published"),
    ]
    # Seven days are made up where there is input for four: the others fail, and are told.
    assert told["schedule tick"][0] == 3
    assert "failed" in told["schedule tick"][1]
    compile((tmp_path / "dags" / "score_events.py").read_text(), "score_events.py", "exec")
