"""Runs that are started at once, and runs whose holder was killed: one writer, and no damage."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models
from tests.chaos.races import processes, race, score

__all__ = ["processes"]
RACES, KILLS = 50, 10
FILES, FILE_ROWS = 4, 20_000


def make_job(folder: Path) -> JobFile:
    spec: dict[str, Any] = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["a", "b", "c"]}},
        "keep": ["a"],
        "output": {"path": "out", "overwrite": True},
        "engine": {"batch_rows": 64, "workers": 1},
    }
    return job_from_dict(spec, folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        values = np.random.default_rng(number).standard_normal((3, FILE_ROWS)).astype(np.float32)
        pq.write_table(pa.table(dict(zip("abc", values, strict=True))), tmp_path / "in" / f"{number}.parquet")
    models.linear(tmp_path / "model.onnx")
    return tmp_path


def contents(output: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(output.glob("*.parquet"))}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_two_runs_started_at_once_one_writes(folder: Path, processes: ForkServerContext) -> None:
    batchonnx.run(make_job(folder))
    reference = contents(folder / "out")
    ends: Counter[tuple[str, ...]] = Counter()
    for number in range(RACES):
        # Without and with a former result, which has to be replaced.
        options = {"fresh": True} if number % 2 else {}
        if number % 2 == 0:
            shutil.rmtree(folder / "out")
        ends[race(processes, make_job, (folder,), options, {})] += 1
        assert contents(folder / "out") == reference
        assert batchonnx.verify(folder / "out").predicted == FILES * FILE_ROWS
        assert list(folder.glob(".out*")) == []
    print(dict(ends))
    assert ends["refused", "scored"] >= RACES / 2, "the runs have to meet"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_runs_that_find_the_holder_dead_do_not_both_take_over(
    folder: Path, processes: ForkServerContext
) -> None:
    batchonnx.run(make_job(folder))
    reference = contents(folder / "out")
    for kill in range(KILLS):
        shutil.rmtree(folder / "out")
        alone, both, told = processes.Barrier(1), processes.Barrier(3), processes.Queue()
        first = processes.Process(target=score, args=(make_job, (folder,), {}, {}, alone, told))
        queue = processes.Queue()
        runs = [
            processes.Process(target=score, args=(make_job, (folder,), {}, {}, both, queue)) for _ in range(2)
        ]
        first.start()
        wait_for(folder / ".out.batchonnx", first, pause_s=0.02 * kill)
        first.kill()
        first.join()
        for run in runs:
            run.start()
        both.wait(timeout=60)
        for run in runs:
            run.join()
            assert run.exitcode == 0
        assert contents(folder / "out") == reference
        batchonnx.verify(folder / "out")
        assert list(folder.glob(".out*")) == []


def wait_for(path: Path, process: BaseProcess, pause_s: float) -> None:
    while process.is_alive() and not path.exists():
        time.sleep(0.001)
    time.sleep(pause_s)
