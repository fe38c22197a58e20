"""Actors, nodes, drivers and clusters die, sleep and come back: the result is that of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from tests import models
from tests.chaos.ray_stage import FAULTS, ROOT, Stage, ray_stage, until

ROUNDS, TRIES = 30, 6
IN_CI = (12, 23, 24)
"""Rounds that between them have every fault and both ways to run; all of them is a soak."""
MORE = (1, 2)
"""Faults of a round beside its first, at least and at most."""
FILES, ROWS = 12, 3_000
DEADLY_FILES = (3, 8)

HOOK = """
import time
from pathlib import Path
import numpy as np

GATE = Path(__file__).with_name("open")

def encode(rows):
    time.sleep(0.03)
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    while (values[:, -1] > 1e4).any() and not GATE.exists():
        time.sleep(0.02)
    if (values > 1e6).any():
        raise ValueError("a value that nobody can have measured")
    return values
"""
"""The later files aren't scored until another file says that there are no more faults to come."""

DEADLY = """
import os, signal
import numpy as np

def encode(rows):
    values = rows.column("f0").to_numpy()
    if (values > 1e8).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return values.reshape(-1, 1)
"""

JOB = """
model: {{path: {model}}}
input: {{path: in}}
features:
  x: {{columns: [{columns}], python: "{hook}:encode"}}
keep: [id]
output: {{path: {output}, overwrite: true}}
engine: {{name: {engine}, batch_rows: 250}}
errors: {{max_bad_rows: 1%}}
"""


def write_job(folder: Path, name: str, output: str, engine: str, hook: str, model: str, columns: str) -> None:
    text = JOB.format(model=model, output=output, engine=engine, hook=hook, columns=columns)
    (folder / name).write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of incompressible rows, each with a bad one; the later half of them waits for a gate."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "in").mkdir()
    rng = np.random.default_rng(9)
    for number in range(FILES):
        columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(8)}
        columns["f0"][rng.integers(0, ROWS)] = 1e9 if number in DEADLY_FILES else 1e7
        columns["f7"][-1] = 2e4 if number >= FILES // 2 else 0
        table = pa.table({"id": np.arange(ROWS) + number * ROWS, **columns})
        pq.write_table(table, folder / "in" / f"{number}.parquet")
    (folder / "careful.py").write_text(HOOK)
    (folder / "deadly.py").write_text(DEADLY)
    models.linear(folder / "wide.onnx", 8, 3)
    models.linear(folder / "narrow.onnx", 1, 3)
    wide = ", ".join(f"f{i}" for i in range(8))
    for output, engine in (("out", "ray"), ("ref", "local")):
        write_job(folder, f"{output}.yaml", output, engine, "careful", "wide.onnx", wide)
    write_job(folder, "deadly.yaml", "out", "ray", "deadly", "narrow.onnx", "f0")
    return folder


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ray_stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    """What this machine makes of it without Ray."""
    (folder / "open").touch()
    process = start(folder, "batchonnx", "run", "ref.yaml", "--quiet")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = contents(folder / "ref")
    assert found
    return found


def clear(folder: Path) -> None:
    """Remove what another test has left."""
    for path in (folder / "out", *folder.glob(".out*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def start(folder: Path, *command: str, stage: Stage | None = None) -> subprocess.Popen[str]:
    """batchonnx with some command, on a stage's cluster if there is one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if stage is not None:
        environment |= {"RAY_ADDRESS": stage.cluster.address, "RAY_API_SERVER_ADDRESS": stage.url}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def contents(output: Path) -> dict[str, str]:
    """Name -> digest of whatever holds rows."""
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


RUN = ("tests.chaos.hasty", "run", "out.yaml", "--quiet")
SUBMIT = ("batchonnx", "submit", "out.yaml", "--follow")


def disturbed(
    folder: Path, stage: Stage, draw: random.Random, faults: list[str], command: tuple[str, ...]
) -> None:
    """Run the job with faults, again as long as its driver or its cluster dies."""
    (folder / "open").unlink(missing_ok=True)
    left = list(faults)
    for _ in range(TRIES):
        if stage.is_dead:
            until(lambda: not stage.orphans(), stage.orphans)
            stage.mend()
        begun_at = time.time()
        process = start(folder, *command, stage=stage)
        wait_for_work(folder, process, begun_at)
        may_fail = False
        while left and process.poll() is None and not may_fail:
            time.sleep(draw.uniform(0, 0.7))
            may_fail = left[0] in DEADLY_TO_A_RUN
            FAULTS[left.pop(0)](stage, draw)
        if not left and not stage.is_dead:
            (folder / "open").touch()
        _, errors = process.communicate(timeout=200)
        if process.returncode == 0:
            assert not left, "the gate was shut"
            return
        print(faults, process.returncode, errors[-600:])
        assert may_fail, errors
    raise AssertionError("too many tries")


DEADLY_TO_A_RUN = ("the driver dies", "the cluster dies")


def wait_for_work(folder: Path, process: subprocess.Popen[str], begun_at: float) -> None:
    """Until a shard is being scored, or the run is over. begun_at: by the clock of the file system."""
    while process.poll() is None and not any(when >= begun_at for when in marks(folder)):
        time.sleep(0.02)


def marks(folder: Path) -> list[float]:
    """When each shard that is being scored was begun."""
    found = []
    for mark in (folder / ".out.batchonnx" / "_batchonnx" / "started").glob("*"):
        with suppress(OSError):
            found.append(mark.stat().st_mtime)
    return found


def drawn(seed: int) -> tuple[random.Random, list[str], tuple[str, ...]]:
    """What a round draws from, its faults, and how it runs."""
    draw = random.Random(seed)
    kinds = list(FAULTS)
    faults = [kinds[seed % len(kinds)], *draw.choices(kinds, k=draw.randint(*MORE))]
    draw.shuffle(faults)
    return draw, faults, SUBMIT if seed % 3 == 2 else RUN


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=pytest.mark.slow if n in IN_CI else pytest.mark.soak) for n in range(ROUNDS)],
)
def test_the_result_is_that_of_an_undisturbed_run(
    folder: Path, expected: dict[str, str], stage: Stage, seed: int
) -> None:
    clear(folder)
    stage.mend()
    draw, faults, command = drawn(seed)
    disturbed(folder, stage, draw, faults, command)
    assert batchonnx.verify(folder / "out").predicted == FILES * (ROWS - 1)
    assert contents(folder / "out") == expected
    ids = pq.read_table(folder / "out", columns=["id"])["id"]
    assert len(ids) == len(ids.unique()) == FILES * (ROWS - 1)
    until(lambda: not stage.orphans(), stage.orphans)
    assert {path.name for path in folder.glob(".*")} == set()


def test_the_rounds_that_ci_plays_have_every_fault_and_both_ways_to_run() -> None:
    rounds = [drawn(seed) for seed in IN_CI]
    assert {fault for _, faults, _ in rounds for fault in faults} == set(FAULTS)
    assert {command for _, _, command in rounds} == {RUN, SUBMIT}


@pytest.mark.slow
def test_a_row_that_kills_its_actor_costs_that_row(folder: Path, stage: Stage) -> None:
    """In one run: two actors die over a shard, then it is scored in a process apart."""
    clear(folder)
    stage.mend()
    process = start(folder, "batchonnx", "run", "deadly.yaml", "--quiet", stage=stage)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    proof = batchonnx.verify(folder / "out")
    rows, dead = FILES * ROWS, len(DEADLY_FILES)
    assert (proof.predicted, proof.quarantined) == (rows - dead, dead)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_ray_of_the_run_s_own_ends_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    clear(folder)
    before = set(Path("/tmp").glob("bx-*"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (folder / "open").touch()
    process = start(folder, "batchonnx", "run", "out.yaml", "--quiet")
    wait_for_work(folder, process, 0.0)
    (place,) = set(Path("/tmp").glob("bx-*")) - before
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), errors
    end = time.monotonic() + 30
    while place.exists() or using(place):
        assert time.monotonic() < end, using(place)
        time.sleep(0.1)


def using(folder: Path) -> list[str]:
    """Processes that name a folder or have a file of it open."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (place / "cmdline").read_bytes().decode(errors="replace")
            files = [str(file.readlink()) for file in (place / "fd").iterdir()]
            if str(folder) in told or any(name.startswith(str(folder)) for name in files):
                found.append(told)
    return found
