"""Actors, raylets and drivers die, sleep and come back: the result is that of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from tests import models
from tests.integration.ray_cluster import add_node, ray_cluster

ROOT = Path(__file__).parents[2]
ROUNDS, TRIES = 7, 6
FILES, ROWS = 12, 3_000
DEADLY_FILES = (3, 8)

HOOK = """
import time
import numpy as np

def encode(rows):
    time.sleep(0.04)
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    if (values > 1e6).any():
        raise ValueError("a value that nobody can have measured")
    return values
"""

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
engine: {{batch_rows: 250}}
errors: {{max_bad_rows: 1%}}
"""


def write_job(folder: Path, name: str, output: str, hook: str, model: str, columns: str) -> None:
    text = JOB.format(model=model, output=output, hook=hook, columns=columns)
    (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of incompressible rows, each with a bad one; slow enough to be disturbed."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(9)
    for number in range(FILES):
        columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(8)}
        columns["f0"][rng.integers(0, ROWS)] = 1e9 if number in DEADLY_FILES else 1e7
        table = pa.table({"id": np.arange(ROWS) + number * ROWS, **columns})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
    (tmp_path / "careful.py").write_text(HOOK)
    (tmp_path / "deadly.py").write_text(DEADLY)
    models.linear(tmp_path / "wide.onnx", 8, 3)
    models.linear(tmp_path / "narrow.onnx", 1, 3)
    wide = ", ".join(f"f{i}" for i in range(8))
    for output in ("out", "ref"):
        write_job(tmp_path, f"{output}.yaml", output, "careful", "wide.onnx", wide)
    write_job(tmp_path, "deadly.yaml", "out", "deadly", "narrow.onnx", "f0")
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(3) as cluster:
        yield cluster


def start(folder: Path, job: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batchonnx", "run", str(folder / job), "--quiet", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def contents(output: Path) -> dict[str, str]:
    """Name -> digest of whatever holds rows."""
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def titled(name: str) -> list[int]:
    """Processes of this cluster whose title has a name in it."""
    mark = f"tests-{os.getpid()}"
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (place / "cmdline").read_bytes().decode(errors="replace")
            if name in told and _is_ours(place, mark):
                found.append(int(place.name))
    return found


def _is_ours(place: Path, mark: str) -> bool:
    if mark.encode() in (place / "environ").read_bytes():
        return True
    folder = os.environ["RAY_TMPDIR"]
    return any(str(file.readlink()).startswith(folder) for file in (place / "fd").iterdir())


def signal_one(draw: random.Random, name: str, number: signal.Signals) -> int | None:
    pids = titled(name)
    if not pids:
        return None
    pid = draw.choice(pids)
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    return pid


def kill_an_actor(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    signal_one(draw, "ray::Actor", signal.SIGKILL)


def kill_a_raylet(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    """Not the head's; another one comes in its place, so that there are three again."""
    workers = list(cluster.worker_nodes)
    if workers:
        cluster.remove_node(draw.choice(workers), allow_graceful=False)
    add_node(cluster)


def kill_the_driver(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    driver.kill()


def stop_an_actor_for_a_while(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    """Past the time after which its shards go to others; then it wakes, and wants to commit."""
    pid = signal_one(draw, "ray::Actor", signal.SIGSTOP)
    if pid is not None:
        time.sleep(14)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def add_a_raylet(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    if len(cluster.worker_nodes) < 3:
        add_node(cluster)


def drain_a_node(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    """As a machine that will be taken away in a minute; another one comes in its place."""
    node = draw.choice(list(cluster.worker_nodes))
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
    command += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "taken away", "--deadline-remaining-seconds", "60"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    add_node(cluster)
    drained.append(node)


drained: list[Any] = []
"""Nodes to be taken away when the run is over."""


def take_drained_away(cluster: Any) -> None:
    while drained:
        node = drained.pop()
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)


def stop_a_raylet_for_a_while(cluster: Any, draw: random.Random, driver: subprocess.Popen[str]) -> None:
    """Its actors go on: only whoever asks the raylet hears nothing."""
    nodes = [node for node in cluster.worker_nodes if node not in drained]
    if not nodes:
        return
    pid = draw.choice(nodes).all_processes["raylet"][0].process.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(12)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


FAULTS: dict[str, Callable[[Any, random.Random, subprocess.Popen[str]], None]] = {
    "an actor dies": kill_an_actor,
    "a raylet dies": kill_a_raylet,
    "the driver dies": kill_the_driver,
    "an actor sleeps": stop_an_actor_for_a_while,
    "a raylet comes": add_a_raylet,
    "a node drains": drain_a_node,
    "a raylet sleeps": stop_a_raylet_for_a_while,
}


def reference(folder: Path) -> dict[str, str]:
    process = start(folder, "ref.yaml", "--engine", "local")
    assert process.wait(120) == 0, process.communicate()
    found = contents(folder / "ref")
    assert found
    return found


def disturbed(folder: Path, cluster: Any, draw: random.Random, faults: list[str]) -> int:
    """Run the job with faults, again as long as its driver dies. How often the driver died."""
    left, deaths = list(faults), 0
    for _ in range(TRIES):
        process = start(folder, "out.yaml", "--engine", "ray")
        wait_for_work(folder, process)
        while left and process.poll() is None:
            time.sleep(draw.uniform(0, 0.7))
            FAULTS[left.pop(0)](cluster, draw, process)
        _, errors = process.communicate(timeout=200)
        if process.returncode == 0:
            return deaths
        assert process.returncode == -signal.SIGKILL, errors
        deaths += 1
    raise AssertionError(f"the driver died {deaths} times")


def wait_for_work(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until a shard is being scored, or the run is over."""
    started = folder / ".out.batchonnx" / "_batchonnx" / "started"
    while process.poll() is None and not (started.exists() and any(started.iterdir())):
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_result_is_that_of_an_undisturbed_run(folder: Path, cluster: Any) -> None:
    draw = random.Random(11)
    expected = reference(folder)
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        first = list(FAULTS)[number % len(FAULTS)]
        faults = [first, draw.choice(list(FAULTS))]
        disturbed(folder, cluster, draw, faults)
        seen.update(faults)
        assert batchonnx.verify(folder / "out").predicted == FILES * (ROWS - 1)
        assert contents(folder / "out") == expected
        assert {path.name for path in folder.glob(".*")} == set()
        until_gone("ray::Actor")
        take_drained_away(cluster)
        shutil.rmtree(folder / "out")
    print(dict(seen))
    assert set(seen) == set(FAULTS)


def until_gone(name: str) -> None:
    end = time.monotonic() + 60
    while found := titled(name):
        assert time.monotonic() < end, found
        time.sleep(0.1)


@pytest.mark.slow
def test_a_row_that_kills_its_actor_costs_that_row(folder: Path, cluster: Any) -> None:
    """In one run: two actors die over a shard, then it is scored in a process apart."""
    process = start(folder, "deadly.yaml", "--engine", "ray")
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
    before = set(Path("/tmp").glob("bx-*"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    process = start(folder, "out.yaml", "--engine", "ray")
    wait_for_work(folder, process)
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
