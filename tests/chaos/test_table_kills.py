"""Runs into one table, killed at thirty moments: readers of the table only ever see whole runs.

Each run appends an input of its own; a run that was killed is started again until it is done. Sizes are
powers of two, so that a count of rows says which runs it is made of, and how often each.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

import batchonnx
from tests.chaos.pollreader import PollReader
from tests.integration.lakes import Lake

KILLS, LAST_STEPS = 30, 14
ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_readers_see_whole_runs_and_each_is_added_once(kind: str, tmp_path: Path) -> None:
    lake = Lake(kind, tmp_path, str(tmp_path / "lake")).make()
    if kind == "iceberg":
        lake.catalog()  # there before its table is, as any catalog
    draw, kills, seen, between = random.Random(7), Counter[str](), {0}, 0
    watch = PollReader(lake.root, built_in=(), readers={kind: lambda: lake.read().num_rows}, pause_s=0.01)
    with watch:
        done = number = 0
        while kills.total() < KILLS:
            rows = 1 << (number + 4)
            job = write_job(lake, lake.write(f"in-{number}", rows, first=rows), number)
            steps = count_steps(lake, number)
            for way in draw.sample(["any step", "a late step", "the clock"], 3):
                if killed(lake, job, way, steps, draw):
                    kills[way] += 1
                    between += is_published(job) and lake.read().num_rows == done
            assert run(tmp_path, job).returncode == 0
            before = lake.versions()
            assert run(tmp_path, job).returncode == 0
            assert lake.versions() == before
            done, number = done + rows, number + 1
            seen.add(done)
            assert lake.read().num_rows == done
            batchonnx.verify(batchonnx.plan(job).output)
    watch.report.assert_only(seen)
    assert len(watch.report.counts) > number // 2
    assert min(kills.values()) > 3, kills
    assert between, "some died when the folder was published and the table hadn't got it"
    print(f"{number} runs, {kills}, {between} between, {watch.report.readers[kind].polls} polls")


def write_job(lake: Lake, source: str, number: int) -> Path:
    """The job of an input, as a file for the command line."""
    path = lake.folder / f"job-{number}.yaml"
    spec = lake.job(source).job.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    path.write_text(yaml.safe_dump(spec))
    return path


def count_steps(lake: Lake, number: int) -> int:
    """Steps on the file system of an undisturbed run, into a table beside, with that many commits before."""
    beside = Lake(lake.kind, lake.folder / f"beside-{number}", str(lake.folder / f"beside-{number}" / "lake"))
    beside.folder.mkdir()
    beside.make()
    if lake.kind == "iceberg":
        beside.catalog()
    if number:
        batchonnx.run(beside.job(beside.write("before", 3, first=1_000_000)))
    job = write_job(beside, beside.write("in", 1 << (number + 4)), 0)
    done = start(beside.folder, job, 0)
    return int(done.stdout.rpartition("steps ")[2])


def is_published(job: Path) -> bool:
    """Whether the run's own folder is complete."""
    return (Path(batchonnx.plan(job).output) / "_SUCCESS").exists()


def killed(lake: Lake, job: Path, way: str, steps: int, draw: random.Random) -> bool:
    """Run the job up to a death; False if it was faster. By the clock: while the table's commit is made."""
    if way != "the clock":
        first = 1 if way == "any step" else steps - LAST_STEPS
        done = start(lake.folder, job, draw.randint(first, steps))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0
    output = Path(batchonnx.plan(job).output)
    process = subprocess.Popen(command(lake.folder, job, 0), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not output.exists():
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.05 if lake.kind == "delta" else 0.2))
    process.kill()
    return process.wait() != 0


def run(folder: Path, job: Path) -> subprocess.CompletedProcess[str]:
    return start(folder, job, 0)


def start(folder: Path, job: Path, die_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, job, die_at), cwd=ROOT, capture_output=True, text=True, check=False)


def command(folder: Path, job: Path, die_at: int) -> list[str]:
    return [sys.executable, "-m", "tests.chaos.dying", str(die_at), str(folder), "run", str(job), "--quiet"]
