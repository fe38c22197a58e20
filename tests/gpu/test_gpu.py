"""On a real GPU: what it gives, what it keeps, and what becomes of a run when its memory ends."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml

from batchonnx import api
from batchonnx.runtime import pinned
from batchonnx.runtime.cuda import free_bytes, read_driver
from batchonnx.runtime.device import Device
from batchonnx.runtime.machine import resident_bytes
from batchonnx.runtime.session import Model, open_model
from tests import models, texts
from tests.benchmarks.gpu_models import encoder, resnet

NEAR = {"rtol": 1e-3, "atol": 1e-4}
"""float32 on both sides, without TF32: sums are taken in another order."""

EXACT = {"use_tf32": "0"}
WIDTH = models.NETWORK_WIDTH


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)


def network(folder: Path, device: Device) -> Model:
    return open_model(str(models.network(folder / "m.onnx")), device=device)


def table_of(x: np.ndarray) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    return pa.table({"id": np.arange(len(x)), "x": column})


def write_job(folder: Path, out: str, asked: Mapping[str, Any], **engine: Any) -> Path:
    told = {
        "input": {"path": "in.parquet"},
        "keep": ["id"],
        "output": {"path": out, "overwrite": True},
        "engine": engine,
    }
    (folder / f"{out}.yaml").write_text(yaml.safe_dump({**told, **asked}))
    return folder / f"{out}.yaml"


def assert_alike(folder: Path, one: str, other: str) -> None:
    """Two results: the same rows, labels equal, numbers near."""
    first, second = (pads.dataset(folder / out).to_table().sort_by("id") for out in (one, other))
    assert first.schema.types == second.schema.types
    assert first.column("id").equals(second.column("id"))
    for name in first.column_names:
        column = first.column(name)
        if pa.types.is_integer(column.type):
            assert np.mean(column.to_numpy() == second.column(name).to_numpy()) > 0.999  # near ties
        else:
            near = [np.stack(table.column(name).to_numpy()) for table in (first, second)]
            assert np.allclose(*near, **NEAR), name


VECTORS = {
    "model": {"path": "m.onnx"},
    "outputs": {
        "y": {"from": "y"},
        "best": {"from": "y", "argmax": True},
        "share": {"from": "y", "softmax": True, "index": 2},
    },
}


def test_vectors_are_scored_as_on_the_cpu(tmp_path: Path) -> None:
    models.network(tmp_path / "m.onnx")
    pq.write_table(table_of(vectors(20_000)), tmp_path / "in.parquet", row_group_size=3000)
    api.run(write_job(tmp_path, "cpu", VECTORS, device="cpu", batch_rows=256))
    summary = api.run(write_job(tmp_path, "gpu", VECTORS, device="cuda", provider_options=EXACT))
    assert summary.predicted == 20_000
    assert summary.devices[0].busy > 0
    assert_alike(tmp_path, "cpu", "gpu")


def test_a_cnn_scores_as_on_the_cpu(tmp_path: Path, gpu: Device) -> None:
    path = resnet(tmp_path / "resnet.onnx")
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 224, 224), np.uint8)
    exact = Device(gpu.provider, gpu.index, {**gpu.options, **EXACT})
    found, expected = (
        open_model(str(path), device=device).run(["scores"], {"pixels": pixels})[0]
        for device in (exact, Device("CPUExecutionProvider"))
    )
    assert np.allclose(found, expected, **NEAR)


def test_texts_are_pooled_there_as_on_the_cpu(tmp_path: Path) -> None:
    encoder(tmp_path / "m.onnx")
    texts.save_tokenizer(tmp_path / "tokenizer.json")
    rng = np.random.default_rng(0)
    some = [" ".join(rng.choice(texts.WORDS, rng.integers(1, 60))) for _ in range(100)]
    pq.write_table(pa.table({"id": np.arange(100), "text": some}), tmp_path / "in.parquet")
    asked = {
        "model": {"path": "m.onnx"},
        "features": {"input_ids": {"column": "text", "tokenizer": "tokenizer.json", "max_length": 64}},
        "outputs": {"vector": {"from": "hidden", "pool": "mean", "normalize": True}},
    }
    api.run(write_job(tmp_path, "cpu", asked, device="cpu"))
    api.run(write_job(tmp_path, "gpu", asked, device="cuda", batch_rows=32, provider_options=EXACT))
    assert_alike(tmp_path, "cpu", "gpu")


def test_memory_that_a_limit_ends_halves_the_batch_and_loses_nothing(tmp_path: Path) -> None:
    """64 floats of each layer, and what goes with them: 64 MB are enough for some 100,000 rows."""
    models.network(tmp_path / "m.onnx")
    pq.write_table(table_of(vectors(300_000)), tmp_path / "in.parquet", row_group_size=300_000)
    little = {**EXACT, "gpu_mem_limit": str(64 << 20)}
    engine = {"device": "cuda", "batch_rows": 262_144}
    summary = api.run(write_job(tmp_path, "gpu", VECTORS, provider_options=little, **engine))
    assert summary.predicted == 300_000
    assert summary.halved > 0
    assert summary.batch_rows < 262_144
    assert any("memory ran out" in note for note in summary.notes)
    api.run(write_job(tmp_path, "cpu", VECTORS, device="cpu", batch_rows=4096))
    assert_alike(tmp_path, "cpu", "gpu")


def test_what_calls_gave_under_load_stays_as_it_was(tmp_path: Path, gpu: Device) -> None:
    model = network(tmp_path, Device(gpu.provider, gpu.index, {**gpu.options, **EXACT}))
    plain = network(tmp_path, Device("CPUExecutionProvider"))

    def score(seed: int) -> tuple[int, np.ndarray]:
        x = vectors(1 + seed * 331 % 4000, seed)
        given = model.run(["y"], {"x": x})[0]
        x[:] = np.nan  # a worker's buffer is written to again at once
        return seed, given

    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(score, range(200)))
    for seed, given in kept:
        expected = plain.run(["y"], {"x": vectors(1 + seed * 331 % 4000, seed)})[0]
        assert np.allclose(given, expected, **NEAR)


def test_ten_thousand_batches_of_changing_shapes_leave_no_memory_behind(
    tmp_path: Path, gpu: Device, is_fake: bool
) -> None:
    model, x = network(tmp_path, gpu), vectors(2048)

    def score(times: int) -> None:
        for number in range(times):
            model.run(["y"], {"x": x[: 1 + number * 331 % 2048]})

    def together(times: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(score, times // 4) for _ in range(4)]:
                done.result()

    together(2000)
    host = resident_bytes()
    device = 0 if is_fake else free_bytes(gpu.index)
    together(10_000)
    assert resident_bytes() - host < 64 << 20
    assert is_fake or device - free_bytes(gpu.index) < 64 << 20


def test_host_buffers_are_page_locked(is_fake: bool) -> None:
    if is_fake:
        pytest.skip("there is no CUDA to lock pages with")
    staged = pinned.Staging(is_locked=True).put("x", vectors(100))
    runtime, flags = pinned.cuda_runtime(), ctypes.c_uint()
    assert runtime is not None
    assert runtime.cudaHostGetFlags(ctypes.byref(flags), ctypes.c_void_p(staged.ctypes.data)) == 0


def test_two_runs_share_one_gpu(tmp_path: Path, is_fake: bool) -> None:
    if is_fake:
        pytest.skip("what isn't there is there in one process only")
    models.network(tmp_path / "m.onnx")
    pq.write_table(table_of(vectors(200_000)), tmp_path / "in.parquet", row_group_size=20_000)
    engine = {"device": "cuda", "provider_options": EXACT, "batch_rows": 1024}
    jobs = [write_job(tmp_path, out, VECTORS, **engine) for out in ("one", "two")]
    command = [sys.executable, "-m", "batchonnx", "run"]
    both = [subprocess.Popen([*command, str(job)], stdout=subprocess.DEVNULL) for job in jobs]
    assert [process.wait() for process in both] == [0, 0]
    assert_alike(tmp_path, "one", "two")


def test_the_summary_has_what_nvml_tells(tmp_path: Path, is_fake: bool) -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py isn't installed")
    if is_fake:
        pytest.skip("there is nothing for NVML to tell of")
    models.network(tmp_path / "m.onnx")
    pq.write_table(table_of(vectors(200_000)), tmp_path / "in.parquet", row_group_size=20_000)
    summary = api.run(write_job(tmp_path, "gpu", VECTORS, device="cuda"))
    (device,) = summary.devices
    assert device.memory is not None
    assert 0 < device.memory <= (device.memory_total or 0)


def test_the_gpus_that_cuda_visible_devices_leaves_are_used(tmp_path: Path, is_fake: bool) -> None:
    if is_fake:
        pytest.skip("there is no driver that reads it")
    models.network(tmp_path / "m.onnx")
    pq.write_table(table_of(vectors(100_000)), tmp_path / "in.parquet", row_group_size=10_000)
    path = write_job(tmp_path, "out", VECTORS, device="cuda", batch_rows=1024)
    count = len(read_driver().gpus)
    for visible, code, used in (("0", 0, 1), (",".join(map(str, range(count))), 0, count), ("", 3, None)):
        command = [sys.executable, "-m", "batchonnx", "run", str(path), "--json", "--fresh"]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        if used is not None:
            assert len(json.loads(done.stdout)["devices"]) == used
