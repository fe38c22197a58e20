"""Killed at fifty random moments, resumed each time: the result is the one of an undisturbed run.

All the while, readers of the output see nothing of a run before it is published, and all of it after.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from tests import models
from tests.chaos.pollreader import PollReader, Report

FILE_ROWS, FILES = 8_000, 10
KILLS_FOR_EACH = 17
ROOT = Path(__file__).parents[2]
GONE = re.compile("No such file|FileNotFound|not found|No files found|Failed to open", re.IGNORECASE)

HOOK = """
import numpy as np

def encode(rows):
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    if (values > 1e6).any():
        raise ValueError("a value that nobody can have measured")
    return values
"""

JOB = """
model: {{path: {model}}}
input: {{path: in}}
features:
  x: {{columns: [f0, f1, f2, f3, f4, f5, f6, f7], python: "careful:encode"}}
keep: [id]
output: {{path: {output}, overwrite: true}}
engine: {{batch_rows: 250, workers: 2}}
errors: {{max_bad_rows: 1%}}
"""


@dataclass(frozen=True)
class Act:
    """What is run on top of the act before. change: done to the input first."""

    name: str
    model: str
    options: tuple[str, ...]
    change: Callable[[Path], None]


def write(path: Path, seed: int, rows: int = FILE_ROWS) -> None:
    """A file of incompressible rows, three of them bad; large enough for a shard of its own."""
    rng = np.random.default_rng(seed)
    columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(8)}
    columns["f0"][rng.integers(0, rows, 3)] = 1e7
    table = pa.table({"id": np.arange(rows) + seed * FILE_ROWS, **columns})
    pq.write_table(table, path, row_group_size=rows // 2)


def first_input(folder: Path) -> None:
    for seed in range(FILES):
        write(folder / f"{seed}.parquet", seed)


def two_files_fewer(folder: Path) -> None:
    for seed in (FILES - 2, FILES - 1):
        (folder / f"{seed}.parquet").unlink()


def one_changed_one_new(folder: Path) -> None:
    write(folder / "3.parquet", 103)
    write(folder / "77.parquet", 77, FILE_ROWS // 2)


ACTS = (
    Act("new", "old.onnx", (), first_input),
    Act("overwrite", "new.onnx", (), two_files_fewer),
    Act("incremental", "new.onnx", ("--incremental",), one_changed_one_new),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_result_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    (tmp_path / "careful.py").write_text(HOOK)
    (tmp_path / "in").mkdir()
    models.linear(tmp_path / "old.onnx", 8, 3)
    models.row_sum(tmp_path / "new.onnx", 8)
    draw = random.Random(4)
    deaths: Counter[str] = Counter()
    former = 0
    for act in ACTS:
        act.change(tmp_path / "in")
        for output in ("out", "ref"):
            (tmp_path / f"{output}.yaml").write_text(JOB.format(model=act.model, output=output))
        shutil.rmtree(tmp_path / "before", ignore_errors=True)
        if former:
            shutil.copytree(tmp_path / "out", tmp_path / "before")
        steps = int(run(tmp_path, "ref.yaml", act).communicate()[0].split()[-1])
        rows = batchonnx.verify(tmp_path / "ref").predicted
        killed = 0
        while killed < KILLS_FOR_EACH:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            if former:
                shutil.copytree(tmp_path / "before", tmp_path / "out")
            with PollReader(str(tmp_path / "out"), pause_s=0.001) as watch:
                for _ in range(KILLS_FOR_EACH - killed):
                    # The first one late: between publishing and the end of a run there is little time.
                    if not killed_once(tmp_path, act, steps, draw, is_late=killed == 0):
                        break
                    killed += 1
                    deaths[f"{act.name}: {state(tmp_path)}"] += 1
                last = run(tmp_path, "out.yaml", act)
                assert last.wait() == 0, last.communicate()
            require_only(watch.report, {former, rows}, may_lose_files=former > 0)
            assert batchonnx.verify(tmp_path / "out", deep=True).predicted == rows
            assert contents(tmp_path / "out") == contents(tmp_path / "ref")
            assert {path.name for path in tmp_path.glob(".*")} == set()
        former = rows
    print(dict(deaths))
    assert sum(deaths.values()) >= 50
    # A death in each act, and in each stage of one.
    assert {name.split(": ")[0] for name in deaths} == {act.name for act in ACTS}
    assert {name.split(": ")[1] for name in deaths} >= {"scoring", "complete", "published"}


def run(folder: Path, job: str, act: Act, die_at: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos.dying", str(die_at), str(folder)]
    command += ["run", str(folder / job), "--quiet", *act.options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def killed_once(folder: Path, act: Act, steps: int, draw: random.Random, *, is_late: bool) -> bool:
    """Run the job up to a random step of its own, or a random moment; False if it was faster."""
    if is_late:
        process = run(folder, "out.yaml", act, steps - draw.randint(2, 6))
    elif draw.random() < 0.7:
        process = run(folder, "out.yaml", act, draw.randint(1, steps))
    else:
        process = run(folder, "out.yaml", act)
        staged = folder / ".out.batchonnx"
        while process.poll() is None and not staged.exists():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def state(folder: Path) -> str:
    """How far the run had come."""
    staged = folder / ".out.batchonnx"
    if (folder / ".out.batchonnx-gone").exists():
        return "published"
    if not (staged / "_batchonnx" / "plan.json").exists():
        return "beginning"
    if not (staged / "_SUCCESS").exists():
        return "scoring" if list((staged / "_batchonnx" / "commits").glob("*.json")) else "beginning"
    if not (folder / "out").exists():
        return "complete"
    staged_run = json.loads((staged / "_batchonnx" / "plan.json").read_text())["run"]
    replaces = json.loads((folder / "out" / "_batchonnx" / "manifest.json").read_text())["replaces"]
    return "published" if replaces == staged_run else "complete"


def require_only(report: Report, rows: set[int], *, may_lose_files: bool) -> None:
    """Readers saw the former result or the new one, whole.

    One that had listed the former files, and looked for them when they had been replaced, found them
    gone: pyarrow says so, DuckDB and fsspec leave them out and see none. Never some of them, and
    never rows of both.
    """
    if may_lose_files:
        rows = rows | {0}
    for name, seen in report.readers.items():
        assert seen.polls, f"{name} never looked"
        assert set(seen.counts) <= rows, (name, seen.changes)
        others = [error for error in seen.errors if not GONE.search(error)]
        assert not others, (name, others)
        assert may_lose_files or not seen.errors, (name, seen.errors)


def contents(output: Path) -> dict[str, str]:
    """Name -> digest of whatever holds rows."""
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
