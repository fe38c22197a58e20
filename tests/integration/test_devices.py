"""Runs on devices that aren't there (see tests/devices.py): all that isn't about speed holds as on a GPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.errors import DeviceError, RowError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.report.live import progress_line
from batchonnx.report.summary import format_summary
from batchonnx.scoring import scorer
from batchonnx.scoring.progress import Progress, RunSummary
from batchonnx.watch.pace import Pace
from tests import models, texts
from tests.devices import FakeDevice, use_devices

ROWS, WIDTH = 6000, 64
ROW_BYTES = 4 * WIDTH


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Vectors in twelve files, and a network for them."""
    models.network(tmp_path / "m.onnx")
    (tmp_path / "in").mkdir()
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    for number, part in enumerate(np.split(x, 12)):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), WIDTH)
        ids = pa.array(np.arange(len(part)) + number * len(part))
        pq.write_table(pa.table({"id": ids, "x": vectors}), tmp_path / "in" / f"{number:02}.parquet")
    return tmp_path


def job(folder: Path, out: str = "out", **engine: Any) -> JobFile:
    return job_from_dict(
        {
            "model": {"path": "m.onnx"},
            "input": {"path": "in"},
            "keep": ["id"],
            "outputs": {
                "best": {"from": "y", "argmax": True},
                "share": {"from": "y", "softmax": True, "index": 3},
                "y": {"from": "y"},
            },
            "output": {"path": out, "overwrite": True},
            "engine": {"device": "cuda", **engine},
        },
        folder,
    )


def run(asked: JobFile, **how: Any) -> RunSummary:
    return api.run(asked, **how)


def predictions(folder: Path, out: str = "out") -> pa.Table:
    return pads.dataset(folder / out).to_table().sort_by("id")


def assert_as_on_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows, once each, with what the CPU predicts of them."""
    monkeypatch.undo()
    run(job(folder, "cpu", device="cpu", batch_rows=64))
    found, expected = predictions(folder), predictions(folder, "cpu")
    assert found.column("id").equals(expected.column("id"))
    assert found.column("best").equals(expected.column("best"))
    for name in ("share", "y"):
        near = [np.stack(table.column(name).to_numpy()) for table in (found, expected)]
        assert np.allclose(*near, rtol=1e-5, atol=1e-6)


def test_a_chain_and_pooled_texts_go_through_a_device_as_through_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts.save_tokenizer(tmp_path / "tokenizer.json")
    texts.save_encoder(tmp_path / "encoder.onnx")
    models.identity(tmp_path / "head.onnx", "float32", ["n", "t", texts.WIDTH])
    rng = np.random.default_rng(0)
    some = [" ".join(rng.choice(texts.WORDS, rng.integers(1, 40))) for _ in range(500)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": np.arange(500), "text": some}), tmp_path / "in" / "0.parquet")
    feature = {"column": "text", "tokenizer": "tokenizer.json", "max_length": 48}
    head = {"path": "head.onnx", "inputs": {"x": "encoder.hidden"}}
    single, several = (
        {"model": {"path": "encoder.onnx"}, "outputs": {"v": {"from": "hidden", "pool": "mean"}}},
        {
            "models": {"encoder": {"path": "encoder.onnx"}, "head": head},
            "outputs": {"v": {"from": "head.y", "pool": "mean"}},
        },
    )
    found: dict[str, pa.Table] = {}
    for device in ("cuda", "cpu"):
        if device == "cuda":
            use_devices(monkeypatch, FakeDevice(), FakeDevice())
        for name, what in (("single", single), ("several", several)):
            asked = {
                **what,
                "input": {"path": "in"},
                "keep": ["id"],
                "features": {"input_ids": feature},
                "output": {"path": f"{name}-{device}"},
                "engine": {"device": device, "batch_rows": 16},
            }
            run(job_from_dict(asked, tmp_path))
            found[f"{name} {device}"] = predictions(tmp_path, f"{name}-{device}")
        monkeypatch.undo()
    expected = np.stack(found["single cpu"].column("v").to_numpy())
    for table in found.values():
        assert table.column("id").to_pylist() == list(range(500))
        assert np.allclose(np.stack(table.column("v").to_numpy()), expected, rtol=1e-5, atol=1e-6)


def test_a_device_gives_what_the_cpu_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(call_s=0.02)
    use_devices(monkeypatch, device)
    summary = run(job(folder, batch_rows=100))
    assert (summary.rows_in, summary.predicted) == (ROWS, ROWS)
    assert [one.name for one in summary.devices] == ["GPU 0: Fake 0"]
    assert 0 < summary.devices[0].busy <= 1
    assert device.most == 3 * 100 * ROW_BYTES  # batches in flight
    assert_as_on_the_cpu(folder, monkeypatch)


def test_memory_that_runs_out_halves_the_batch_for_what_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_devices(monkeypatch, FakeDevice(memory=130 * ROW_BYTES))
    summary = run(job(folder, batch_rows=500, workers=1))
    assert summary.predicted == ROWS
    assert summary.batch_rows == 125
    assert summary.halved == 7  # 500 in three pieces; twice 250, at once and when that was tried again
    assert any("125 rows in the end, 500 before" in note for note in summary.notes)
    assert_as_on_the_cpu(folder, monkeypatch)


def test_workers_that_run_out_of_memory_together_lose_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_devices(monkeypatch, FakeDevice(memory=300 * ROW_BYTES), FakeDevice(memory=100 * ROW_BYTES))
    assert run(job(folder, batch_rows=500, workers=6)).predicted == ROWS
    assert_as_on_the_cpu(folder, monkeypatch)


def test_memory_that_others_hold_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(memory=0)
    use_devices(monkeypatch, device)
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        device.memory = 1 << 30 if len(waits) > 3 else 0

    monkeypatch.setattr(scorer, "sleep", sleep)
    summary = run(job(folder, batch_rows=8, workers=1))
    assert summary.predicted == ROWS
    assert len(waits) > 3
    assert summary.batch_rows == 8  # one row was enough for a while only
    assert_as_on_the_cpu(folder, monkeypatch)


def test_memory_that_never_comes_is_told_as_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_devices(monkeypatch, FakeDevice(memory=ROW_BYTES - 1))
    monkeypatch.setattr(scorer, "sleep", lambda wait_s: None)
    with pytest.raises(RowError) as raised:
        run(job(folder, batch_rows=4))
    assert "allocate memory" in raised.value.problems[0].facts["found"]
    assert not (folder / "out").exists()


def test_all_devices_work_and_one_that_is_lost_costs_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [FakeDevice(call_s=0.001), FakeDevice(call_s=0.001, lost_at=40), FakeDevice(call_s=0.001)]
    use_devices(monkeypatch, *devices)
    seen: list[Progress] = []
    summary = run(job(folder, batch_rows=20, workers=6), on_progress=seen.append)
    assert summary.predicted == ROWS
    assert max(one.rows_in for one in seen) <= ROWS
    assert all(device.calls > 30 for device in devices)
    assert [one.is_lost for one in summary.devices] == [False, True, False]
    assert summary.lost == 2  # workers
    (note,) = [note for note in summary.notes if "lost" in note]
    assert "GPU 1: Fake 1" in note
    assert "uncorrectable ECC error" in note
    assert api.verify(folder / "out").rows_in == ROWS
    assert_as_on_the_cpu(folder, monkeypatch)


@pytest.mark.parametrize("lost_at", [1, 2, 7, 30])
def test_without_a_device_left_the_run_ends_and_goes_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lost_at: int
) -> None:
    use_devices(monkeypatch, FakeDevice(lost_at=lost_at), FakeDevice(lost_at=2 * lost_at))
    with pytest.raises(DeviceError) as raised:
        run(job(folder, batch_rows=100, workers=2))
    assert set(raised.value.problems[0].facts) == {"GPU 0: Fake 0", "GPU 1: Fake 1"}
    assert not (folder / "out").exists()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    use_devices(monkeypatch, FakeDevice())
    summary = run(job(folder, batch_rows=100))
    assert summary.predicted == ROWS
    assert summary.resumed == 0 if lost_at == 1 else summary.resumed >= 0
    assert_as_on_the_cpu(folder, monkeypatch)


def test_a_device_that_is_lost_while_sizes_are_tried_leaves_that_to_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_devices(monkeypatch, FakeDevice(call_s=0.001, lost_at=5), FakeDevice(call_s=0.001))
    summary = run(job(folder))
    assert summary.predicted == ROWS
    assert [one.is_lost for one in summary.devices] in ([True, False], [False, False])
    assert_as_on_the_cpu(folder, monkeypatch)


def test_the_batch_size_is_found_and_remembered_until_the_device_is_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice(call_s=0.002)  # rows cost nothing: the largest that has memory is best
    device.memory = 3 * 300 * ROW_BYTES
    use_devices(monkeypatch, device)
    first = run(job(folder))
    assert first.batch_rows in (128, 256)
    assert first.halved == 0
    told = f"auto is {first.batch_rows} on this device, as was found before"
    assert any(told in note for note in api.plan(job(folder, "again")).notes)
    device.rows.clear()
    again = run(job(folder, "again"))
    assert again.batch_rows == first.batch_rows
    assert set(device.rows) <= {first.batch_rows, *range(first.batch_rows)}
    assert len(device.rows) < 100  # nothing was measured


def test_what_holds_the_device_back_is_told_on_the_way_and_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_devices(monkeypatch, FakeDevice(call_s=0.01))
    seen: list[Progress] = []
    summary = run(job(folder, batch_rows=100), on_progress=seen.append)
    pace = Pace()
    for one in seen:
        pace.note(one)
    assert any("GPU" in progress_line(one, pace) for one in seen)
    told = format_summary(summary)
    assert "  device   GPU " in told
    assert "GPU 0: Fake 0: a batch on it " in told
    idle = dataclasses.replace(summary.devices[0], busy=0.41)
    summary = dataclasses.replace(summary, devices=(idle,), busy_s={"read": 3.0, "predict": 2.0})
    expected = "GPU 41% busy: waiting for read; more read-ahead or more cores would help"
    assert expected in format_summary(summary)


@pytest.mark.slow
def test_the_tests_and_the_benchmark_for_a_gpu_work_without_one(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    benchmark = ["tests.benchmarks.gpu", "--device", "cpu", "--seconds", "0.5", "--only", "jpeg"]
    for command in (tests, benchmark):
        env = {**os.environ, "BATCHONNX_GPU_TESTS": "fake"}
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=root, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
