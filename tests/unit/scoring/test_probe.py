"""The batch size: measured where it is left open, never where it is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.job.load import job_from_dict
from batchonnx.planning.plan import Plan
from batchonnx.runtime.device import Device
from batchonnx.runtime.session import Model, open_model
from batchonnx.scoring.chunk import Chunk
from batchonnx.scoring.probe import SIZES, BatchSize, Lesson, choose_size
from batchonnx.scoring.read import read_chunks
from tests import models
from tests.devices import CUDA, FakeDevice, use_devices


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ({1: 40.0, 4: 40.5, 16: 39.9}, 1),
        ({1: 3e4, 64: 1e6, 256: 1.9e6, 1024: 3e6, 2048: 3.1e6, 4096: 2.8e6}, 2048),
        ({1: 3e4, 64: 1e6, 256: 3e6, 1024: 9e6, 2048: 8.9e6, 4096: 8e6}, 4096),
        ({1: 3e4, 64: 1e6, 256: 9e6, 1024: 9e6, 2048: 12e6, 4096: 13e6}, 4096),
        ({64: 3.0e5, 256: 3.05e5, 1024: 3.0e5}, 256),
        ({1: 7.0}, 1),
    ],
)
def test_the_smallest_good_size_with_long_calls_is_taken(rates: dict[int, float], size: int) -> None:
    assert choose_size(rates) == size


@pytest.mark.parametrize(
    ("engine", "remembered", "batch", "settled"),
    [
        ({}, None, "n", None),
        ({}, 64, "n", 64),
        ({"batch_rows": 7}, 64, "n", 7),
        ({}, 64, 5, 5),
    ],
)
def test_what_settles_it_without_measuring(
    tmp_path: Path, engine: dict[str, int], remembered: int | None, batch: int | str, settled: int | None
) -> None:
    pq.write_table(pa.table({"x": np.zeros((500), np.float32)}), tmp_path / "t.parquet")
    path = models.identity(tmp_path / "m.onnx", "float32", [batch])
    job = job_from_dict(
        {
            "model": {"path": str(path)},
            "input": {"path": str(tmp_path / "t.parquet")},
            "output": {"path": str(tmp_path / "out")},
            "engine": engine,
        }
    )
    plan, model = api.plan(job), open_model(str(path))
    size = BatchSize(plan, model, remembered)
    assert size.settled == 0
    chunk = next(read_chunks(plan.shards[0], plan.listing, plan.columns, None, 500, 500))
    found = size.settle(chunk)
    assert found == size.settled
    assert found in ((settled,) if settled is not None else SIZES)


@pytest.mark.parametrize("held_up", [1, 2, 3, 5, 8])
def test_a_call_that_is_held_up_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_up: int
) -> None:
    plan, model, chunk = _tiny_job(tmp_path, rows=20_000)
    run, calls = model.run, 0

    def run_or_wait(names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == held_up:
            end = thread_time() + 0.4
            while thread_time() < end:
                pass
        return run(names, tensors)

    monkeypatch.setattr(model, "run", run_or_wait)
    assert BatchSize(plan, model).settle(chunk) >= 256


def test_a_chunk_of_which_a_filter_left_little_is_measured_as_a_whole_one(tmp_path: Path) -> None:
    plan, model, chunk = _tiny_job(tmp_path, rows=20_000)
    assert BatchSize(plan, model).settle(chunk.slice(0, 3)) >= 256


def test_a_size_that_memory_has_halved_comes_back_later_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_devices(monkeypatch, FakeDevice())
    plan, _, _ = _tiny_job(tmp_path, rows=100)
    told: list[int] = []
    model = open_model(str(tmp_path / "m.onnx"), device=Device(CUDA))
    batch = BatchSize(
        plan, model, lesson=Lesson(512, None), on_lesson=lambda one: told.append(one.batch_rows)
    )
    memory = 256  # rows that there is memory for
    seen = []
    for _ in range(16):
        batch.fit(batch.settled // 2 if batch.settled > memory else batch.settled)
        seen.append(batch.settled)
        assert batch.most == 512  # what workers make their buffers for
    assert seen == [256, 256, 512, *[256] * 4, 512, *[256] * 8]
    assert told == [256, 512, 256, 512, 256]
    assert batch.notes == ("the device's memory ran out: batches had 256 rows in the end, 512 before",)


def _tiny_job(tmp_path: Path, rows: int) -> tuple[Plan, Model, Chunk]:
    pq.write_table(pa.table({"x": np.zeros(rows, np.float32)}), tmp_path / "t.parquet")
    path = models.identity(tmp_path / "m.onnx", "float32", ["n"])
    job = job_from_dict(
        {
            "model": {"path": str(path)},
            "input": {"path": str(tmp_path / "t.parquet")},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    plan = api.plan(job)
    return (
        plan,
        open_model(str(path)),
        next(read_chunks(plan.shards[0], plan.listing, plan.columns, None, rows, rows)),
    )
