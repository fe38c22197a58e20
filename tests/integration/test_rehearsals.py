"""A job tried on some of its own rows: forecast, tuned, and disturbed; its own output is never touched."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from batchonnx.cli import main
from batchonnx.engines.ray.reaper import MARK
from batchonnx.ledger.object_folder import ObjectFolder
from tests import models
from tests.integration.ray_cluster import own_ray
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROOT = Path(__file__).parents[2]
ROWS, WIDTH = 40_000, 8

JOB = """
# Scores, every night.
name: scores
model: {{path: model.onnx}}
input: {{path: {source}}}
features: {{x: {{columns: [{columns}]}}}}
keep: [id]   # who it is
output: {{path: {output}}}
"""


def make_job(folder: Path, source: str = "in.parquet", output: str = "out/scores") -> Path:
    models.linear(folder / "model.onnx", WIDTH, 3)
    columns = ", ".join(f"f{number}" for number in range(WIDTH))
    (folder / "job.yaml").write_text(JOB.format(source=source, output=output, columns=columns))
    return folder / "job.yaml"


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    columns = {f"f{number}": rng.standard_normal(ROWS, dtype=np.float32) for number in range(WIDTH)}
    return pa.table({"id": np.arange(ROWS), **columns})


def make_job_in_store(folder: Path, url: str) -> Path:
    import boto3

    pq.write_table(table(), folder / "in.parquet", row_group_size=ROWS // 4)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    boto3.client("s3").upload_file(str(folder / "in.parquet"), bucket, f"{prefix}/in.parquet")
    return make_job(folder, f"{url}/in.parquet", f"{url}/out")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=ROWS // 4)
    return make_job(tmp_path)


def run(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_forecast_leaves_nothing_and_costs_what_the_table_says(job: Path) -> None:
    (job.parent / "prices.yaml").write_text("cpu_hour: 3600\ngb_month: 1000000000\n")
    before = names(job.parent)
    found = run("plan", job, "--probe", "--prices", job.parent / "prices.yaml")["forecast"]
    assert names(job.parent) == before
    crew = found["crews"][0]
    assert found["rows"] == found["tried_rows"] == ROWS
    assert 0 < crew["low"] < crew["seconds"] < crew["high"]
    assert crew["cost"]["cpu"] == pytest.approx(crew["cpu_hours"] * 3600)
    assert crew["cost"]["storage"] == pytest.approx(found["output_bytes"])
    assert crew["memory"] > 50 << 20


def test_a_forecast_of_text_files_counts_their_rows_by_a_few_blocks(tmp_path: Path) -> None:
    from batchonnx import api
    from batchonnx.rehearsal.pace import about_rows

    pacsv.write_csv(table(), tmp_path / "in.csv")
    with pa.CompressedOutputStream(str(tmp_path / "in-2.csv.gz"), "gzip") as packed:
        pacsv.write_csv(table(), packed)
    plan = api.plan(make_job(tmp_path, "in*"))
    assert about_rows(plan) == pytest.approx(2 * ROWS, rel=0.2)


@pytest.mark.slow
def test_a_forecast_reads_and_writes_a_bucket_and_leaves_nothing_there(
    tmp_path: Path, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    import boto3

    use_store(s3)
    job = make_job_in_store(tmp_path, s3_folder)
    bucket, _, prefix = s3_folder.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    found = run("plan", job, "--probe")["forecast"]
    assert found["requests"]["CreateMultipartUpload"] >= 1
    assert found["requests"]["GetObject"] >= 1
    left = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    assert [entry["Key"] for entry in left] == [f"{prefix}/in.parquet"]
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_try_that_dies_ends_the_forecast_and_says_so(job: Path) -> None:
    dying = "import os, sys\n\ndef encode(rows):\n    if 'rehearsal' in sys.argv[0]:\n        os._exit(9)\n"
    (job.parent / "dying.py").write_text(
        f"{dying}    return rows.column(0).to_numpy().reshape(-1, 1).repeat(8, 1)\n"
    )
    job.write_text(job.read_text().replace("f7]", 'f7], python: "dying:encode"'))
    before = names(job.parent)
    done = CliRunner().invoke(main, ["plan", str(job), "--probe"])
    assert done.exit_code == 9
    assert "the process that tried the job has died" in done.stderr
    assert [name for name in names(job.parent) if "pycache" not in name] == before


@pytest.mark.slow
def test_sigterm_ends_what_was_started_and_leaves_nothing(job: Path) -> None:
    before = names(job.parent)
    command = [sys.executable, "-m", "batchonnx", "chaos", str(job)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "killed, round" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 130
    assert names(job.parent) == before


def test_tune_writes_the_best_into_the_job_and_nothing_else(job: Path) -> None:
    before, files = job.read_text(), names(job.parent)
    found = run("tune", job, "--budget", "2s", "--write", "--html", job.parent / "tune.html")
    assert names(job.parent) == sorted([*files, "tune.html"])
    assert (job.parent / "tune.html").read_bytes().count(b"<rect") == len(found["tried"])
    best = found["tried"][0]
    assert best["rows_per_s"] >= 0.97 * max(one["rows_per_s"] for one in found["tried"][:2])
    loaded = yaml.safe_load(job.read_text())
    if best["setting"] == found["given"]:
        assert job.read_text() == before
    else:
        assert {key: loaded["engine"][key] for key in found["write"]} == found["write"]
    assert "# Scores, every night." in job.read_text()
    assert "keep: [id]   # who it is" in job.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_commands_of_the_page_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "rehearsals.md").read_text()
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    (prices,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "prices.yaml").write_text(prices)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert not (tmp_path / "jobs" / "out").exists()


def chaos(job: Path, *options: str, broken_by: str = "") -> tuple[int, dict[str, Any]]:
    """A drill as a command. broken_by: Python that each process of it runs first."""
    environment = dict(os.environ)
    if broken_by:
        home = job.parent / "broken"
        home.mkdir(exist_ok=True)
        (home / "sitecustomize.py").write_text(broken_by)
        environment["PYTHONPATH"] = f"{home}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "batchonnx", "chaos", str(job), "--json", "--seed", "3", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, json.loads(
        done.stdout[: done.stdout.rindex("}\n{") + 1] if "}\n{" in done.stdout else done.stdout
    )


def chaos_on_ray(job: Path, broken_by: str = "") -> tuple[int, dict[str, Any]]:
    """On a Ray of each run's own."""
    with own_ray() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv(MARK)  # each run marks its own Ray
        return chaos(job, "--engine", "ray", broken_by=broken_by)


def broken(drill: dict[str, Any]) -> list[Any]:
    return [verdict for verdict in drill["verdicts"] if verdict["status"] == "broken"]


def statuses(drill: dict[str, Any]) -> dict[str, str]:
    return {verdict["promise"]: verdict["status"] for verdict in drill["verdicts"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_drill_is_green_and_touches_nothing(job: Path) -> None:
    before = names(job.parent)
    code, drill = chaos(job)
    assert names(job.parent) == before
    assert code == 0, broken(drill)
    held = {"every row once", "all or nothing", "resume", "one writer", "the same bytes", "a clean end"}
    assert {promise for promise, status in statuses(drill).items() if status == "held"} == held


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_drill_in_a_bucket_lets_requests_fail(
    tmp_path: Path, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    use_store(s3)
    code, drill = chaos(make_job_in_store(tmp_path, s3_folder))
    assert code == 0, broken(drill)
    assert statuses(drill)["requests may fail"] == "held"
    found = ObjectFolder(s3_folder)
    assert [entry.key for entry in found.list()] == ["in.parquet"]
    assert not list(found.uploads())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_drill_on_ray_kills_an_actor(job: Path) -> None:
    code, drill = chaos_on_ray(job)
    assert code == 0, broken(drill)
    assert statuses(drill)["workers may die"] == "held", drill["verdicts"]
    assert names(job.parent) == ["in.parquet", "job.yaml", "model.onnx"]


FORGETFUL = """
from batchonnx.ledger import run_folder
run_folder._settle = lambda folder, kept: {}
"""
LOCKLESS = """
from contextlib import nullcontext
from batchonnx.ledger import local
local.hold_lease = lambda *_, **__: nullcontext()
"""
HASTY = """
import time
from batchonnx.ledger import run_folder
was = run_folder.commit
def commit(run, record):
    made = was(run, record)
    target = run.with_name(run.name[1:].removesuffix(".batchonnx"))
    target.mkdir(exist_ok=True)
    (target / made.part).write_bytes(b"PAR1")
    time.sleep(0.1)
    (target / made.part).unlink()
    return made
run_folder.commit = commit
"""
CARELESS = """
from batchonnx.ledger import run_folder
def _has_size(path, stored):
    if path.exists():
        path.write_bytes(path.read_bytes()[: stored.bytes // 2])
    return True
run_folder._has_size = _has_size
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken_by", "promise"),
    [
        (FORGETFUL, "resume"),
        (LOCKLESS, "one writer"),
        (HASTY, "all or nothing"),
        (CARELESS, "every row once"),
    ],
    ids=[
        "commits are forgotten",
        "no lease",
        "parts are seen before they are published",
        "commits are not checked",
    ],
)
def test_a_drill_is_red_where_a_check_is_missing(job: Path, broken_by: str, promise: str) -> None:
    code, drill = chaos(job, broken_by=broken_by)
    assert code == 4
    assert statuses(drill)[promise] == "broken", drill["verdicts"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("broken_by", "promise"),
    [(HASTY, "all or nothing"), (CARELESS, "every row once")],
    ids=["an actor shows parts before they are published", "commits are not checked"],
)
def test_so_it_is_on_ray(job: Path, broken_by: str, promise: str) -> None:
    """Rows take a moment each, so that a driver is hit while they are scored, however late."""
    (job.parent / "slow.py").write_text(
        "import time\n\nimport numpy as np\n\n\ndef encode(rows):\n    time.sleep(0.05)\n"
        "    return np.stack([rows.column(i).to_numpy() for i in range(rows.num_columns)], axis=1)\n"
    )
    job.write_text(job.read_text().replace("f7]", 'f7], python: "slow:encode"'))
    code, drill = chaos_on_ray(job, broken_by)
    assert code == 4
    assert statuses(drill)[promise] == "broken", drill["verdicts"]
