"""Idle workers help those that still have rows, and nobody waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.engines.spare import SpareHands
from batchonnx.job.load import job_from_dict
from batchonnx.runtime.device import Device
from batchonnx.runtime.session import DeviceLost
from batchonnx.scoring.chunk import Chunk, Segment
from tests import models


def chunk(*values: int) -> Chunk:
    return Chunk(pa.record_batch({"v": list(values)}), (Segment("f", 0, len(values)),))


def double(given: Chunk) -> list[pa.RecordBatch]:
    return [pa.record_batch({"v": [2 * v.as_py() for v in given.columns["v"]]})]


def broken(given: Chunk) -> list[pa.RecordBatch]:
    raise KeyError("row 3")


def serving(spare: SpareHands, score: object) -> threading.Thread:
    thread = threading.Thread(target=spare.serve, args=(score,), daemon=True)
    thread.start()
    return thread


def test_what_is_offered_is_scored_by_whoever_is_idle() -> None:
    spare = SpareHands(2)
    spare.leave()
    helper = serving(spare, double)
    results = [spare.offer(chunk(i, i + 1)) for i in range(20)]
    assert [r.result(10)[0]["v"].to_pylist() for r in results] == [[2 * i, 2 * i + 2] for i in range(20)]
    spare.leave()
    helper.join(10)
    assert not helper.is_alive()


def test_an_error_comes_back_to_the_owner_and_the_helper_goes_on() -> None:
    spare = SpareHands(2)
    spare.leave()
    helper = serving(spare, broken)
    for _ in range(2):
        with pytest.raises(KeyError, match="row 3"):
            spare.offer(chunk(1)).result(10)
    spare.leave()
    helper.join(10)


def test_one_who_loses_its_device_leaves_and_gives_back_what_is_offered() -> None:
    spare = SpareHands(2)
    spare.leave()
    begun, ended = threading.Event(), threading.Event()

    def lost(given: Chunk) -> list[pa.RecordBatch]:
        begun.set()
        ended.wait(10)
        raise DeviceLost.of(Device("CUDAExecutionProvider"), "CUDA failure 999: unknown error")

    seen: list[BaseException] = []

    def serve() -> None:
        try:
            spare.serve(lost)
        except DeviceLost as error:
            seen.append(error)

    helper = threading.Thread(target=serve, daemon=True)
    helper.start()
    taken = spare.offer(chunk(1))
    assert begun.wait(10)
    waiting = spare.offer(chunk(2))  # nobody else is there to take it
    ended.set()
    for future in (taken, waiting):
        with pytest.raises(DeviceLost, match="unknown error"):
            future.result(10)
    helper.join(10)
    assert len(seen) == 1
    assert spare.idle <= 0


def test_nobody_is_idle_while_all_have_shards() -> None:
    assert SpareHands(3).idle == 0


def test_with_one_row_group_all_workers_score_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.standard_normal(300_000).astype(np.float32) for i in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=300_000)
    job = {
        "model": {"path": str(models.linear(tmp_path / "m.onnx"))},
        "input": {"path": str(tmp_path / "t.parquet")},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "keep": ["f0"],
    }
    written = []
    for workers in (1, 2, 5):
        output = {"path": str(tmp_path / f"out{workers}")}
        engine = {"workers": workers, "batch_rows": 100}
        summary = api.run(job_from_dict(job | {"output": output, "engine": engine}))
        assert summary.model_calls == 3_000
        (part,) = (tmp_path / f"out{workers}").glob("part-*.parquet")
        written.append((part.name, part.read_bytes()))
    assert written[0] == written[1] == written[2]
