"""What `plan --probe` says a run will take, beside what it takes.

    python -m tests.benchmarks --only foretold
    python -m tests.benchmarks.foretold FOLDER CASE...     some of them

Both are commands as a user gives them, each in a process of its own: `plan --probe`, then `run`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import boto3
import pyarrow.parquet as pq

from tests.benchmarks import stores, text
from tests.benchmarks.data import JOBS, make_case

ROWS = {"glosses": 4_000, "docstrings": 1_200}
LOCAL = ("tiny", "middle", "flights", "glosses", "docstrings", "emoji")
IN_S3 = ("tiny", "middle")
GOAL = 0.25

EMBED = """
model: {{path: {model}/model.onnx}}
input: {{path: in.parquet}}
features: {{input_ids: {{column: text, tokenizer: {model}, max_length: 256}}}}
outputs: {{embedding: {{from: last_hidden_state, pool: mean, normalize: true}}}}
output: {{path: out}}
"""


def foretold(folder: Path, rounds: int, cases: tuple[str, ...] = (*LOCAL, "s3")) -> Iterator[str]:
    """The table; `rounds` times each."""
    yield f"foretold: plan --probe beside run   (goal: within {GOAL:.0%})"
    yield "  case            rows tried   foretold    between            real   off"
    for name in cases:
        if name == "s3":
            yield from _in_s3(folder, rounds)
        elif (job := job_of(name, folder)) is None:
            yield f"  {name}: left out, its data or model isn't there (jobs/get_*.py)"
        else:
            for _ in range(rounds):
                yield _row(name, job)


def _row(name: str, job: Path) -> str:
    """One case, once."""
    shutil.rmtree(job.parent / "out", ignore_errors=True)
    found = json.loads(_batchonnx(job, "plan", "--probe", "--json"))["forecast"]
    begin = perf_counter()
    _batchonnx(job, "run", "--quiet")
    real = perf_counter() - begin
    crew = found["crews"][0]
    tried = found["tried_rows"] / found["rows"]
    between = f"{crew['low']:.1f} to {crew['high']:.1f} s"
    told = f"  {name:<12} {tried:>10.0%}      {crew['seconds']:6.1f} s   {between:<16} {real:5.1f} s"
    row = f"{told} {crew['seconds'] / real - 1:+5.0%}"
    print(row, file=sys.stderr, flush=True)
    return row


def _batchonnx(job: Path, command: str, *options: str) -> str:
    asked = [sys.executable, "-m", "batchonnx", command, str(job), *options]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(asked)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def job_of(name: str, folder: Path) -> Path | None:
    """The job file of a case, its data made; None where they aren't there."""
    if name == "emoji":
        if not (JOBS / "data" / "emoji.parquet").exists():
            return None
        home = folder / "emoji"
        home.mkdir(parents=True, exist_ok=True)
        told = (JOBS / "images.yaml").read_text()
        for key in ("path: models", "path: data", "labels: models"):
            first, _, rest = key.partition(" ")
            told = told.replace(key, f"{first} {JOBS}/{rest}")
        (home / "job.yaml").write_text(told.replace("path: out/images", "path: out"))
        return home / "job.yaml"
    if name not in ROWS:
        return make_case(name, folder).folder / "job.yaml"
    if not text.MODEL.exists():
        return None
    home = folder / f"foretold-{name}"
    home.mkdir(parents=True, exist_ok=True)
    told_by = text.glosses if name == "glosses" else text.docstrings
    pq.write_table(text.table(told_by(ROWS[name])), home / "in.parquet", row_group_size=ROWS[name] // 4)
    (home / "job.yaml").write_text(EMBED.format(model=text.MODEL))
    return home / "job.yaml"


def _in_s3(folder: Path, rounds: int) -> Iterator[str]:
    """Input and output in a bucket, every request 30 ms late."""
    with stores.store(folder / "s3") as (_, proxied):
        cases = [make_case(name, folder) for name in IN_S3]
        boto3.client("s3").upload_file(str(folder / "table.parquet"), "lake", "table.parquet")
        os.environ["AWS_ENDPOINT_URL"] = proxied.endpoint
        proxied.delay(stores.DELAY_MS)
        for case in cases:
            for _ in range(rounds):
                home = folder / f"{case.name}-foretold-{secrets.token_hex(4)}"
                stores.copy_of_job(case.folder, home, "s3://lake/table.parquet", f"s3://lake/{home.name}")
                yield _row(f"{case.name}, s3", home / "job.yaml")


if __name__ == "__main__":
    place, *names = sys.argv[1:]
    print("\n".join(foretold(Path(place), 1, tuple(names) or (*LOCAL, "s3"))))
