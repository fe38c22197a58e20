"""The device of a job: which one, what of it decides the bytes, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchonnx
from batchonnx import api
from batchonnx.errors import ContractError, DeviceError, JobFileError
from batchonnx.planning.devices import choose_device
from batchonnx.planning.engine_shapes import with_engine_shapes
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.placement import Placement, all_placements, told_of
from batchonnx.runtime.session import open_model
from batchonnx.runtime.wheels import installed_wheels
from tests import models

needs_cpu_wheel = pytest.mark.skipif(
    [*installed_wheels()] != ["onnxruntime"], reason="another wheel than the CPU's is installed"
)


def written(folder: Path, **engine: Any) -> Path:
    """A job whose engine section is this."""
    if not (folder / "in").exists():
        rows = pa.table({f"f{i}": np.arange(10, dtype=np.float32) for i in range(3)})
        (folder / "in").mkdir()
        pq.write_table(rows, folder / "in" / "0.parquet")
        models.linear(folder / "m.onnx")
    job = {
        "model": {"path": "m.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
        "engine": engine,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def chosen(folder: Path, **engine: Any) -> Device:
    return choose_device(api.load_job(written(folder, **engine)))[0]


@needs_cpu_wheel
@pytest.mark.parametrize("device", ["cuda", "tensorrt:1", "openvino"])
def test_a_device_that_the_wheel_lacks_is_refused_before_anything_is_written(
    tmp_path: Path, device: str
) -> None:
    job = written(tmp_path, device=device)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DeviceError) as found:
        batchonnx.run(job)
    (problem,) = found.value.problems
    wheel = "onnxruntime-openvino" if device == "openvino" else "onnxruntime-gpu"
    assert problem.facts["expected"] == wheel
    assert "pip uninstall -y onnxruntime" in problem.fix
    assert found.value.exit_code == 3
    assert sorted(tmp_path.rglob("*")) == before


@needs_cpu_wheel
def test_auto_takes_the_cpu_says_why_and_gives_the_cpus_bytes(tmp_path: Path) -> None:
    plain = batchonnx.plan(written(tmp_path))
    auto = batchonnx.plan(written(tmp_path, device="auto"))
    assert auto.notes == (
        *plain.notes,
        "engine.device: auto is cpu: the installed ONNX Runtime has no CUDAExecutionProvider",
    )
    assert auto.fingerprint == plain.fingerprint


def test_a_file_that_is_no_plugin_is_refused_with_its_path(tmp_path: Path) -> None:
    job = written(tmp_path, device="plugin:libnone.so")
    with pytest.raises(DeviceError, match=str(tmp_path / "libnone.so")):
        batchonnx.run(job)
    (tmp_path / "libnone.so").write_text("no library")
    with pytest.raises(DeviceError, match="can't be loaded"):
        batchonnx.run(job)


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"device": "gpu"}, "say cuda"),
        ({"device": "cuda:x"}, "cuda:N"),
        ({"provider_options": {"use_tf32": 0}}, "leave provider_options out"),
        ({"device": "auto", "provider_options": {"use_tf32": 0}}, "leave provider_options out"),
        ({"name": "ray", "device": "cuda"}, "num_gpus: 1"),
        ({"name": "ray", "device": "cuda:1", "resources": {"num_gpus": 1}}, "Ray gives each worker its GPU"),
    ],
)
def test_an_engine_that_no_job_can_have(tmp_path: Path, engine: Mapping[str, Any], told: str) -> None:
    with pytest.raises(JobFileError, match=told):
        api.load_job(written(tmp_path, **engine))


def test_the_jobs_options_stand_before_ours(tmp_path: Path) -> None:
    found = chosen(tmp_path, device="cuda:2", provider_options={"use_tf32": False, "gpu_mem_limit": 1 << 30})
    assert found.index == 2
    assert found.options == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "gpu_mem_limit": str(1 << 30),
    }


@pytest.mark.parametrize(("gpus", "device"), [(0, "CPUExecutionProvider"), (0.5, "CUDAExecutionProvider")])
def test_on_ray_auto_is_what_it_reserves(tmp_path: Path, gpus: float, device: str) -> None:
    found = chosen(tmp_path, name="ray", device="auto", resources={"num_gpus": gpus})
    assert (found.provider, found.share) == (device, gpus or 1.0)


def planned(folder: Path, where: Device, **engine: Any) -> Plan:
    """The plan for a device that isn't here: only a session would notice."""
    job = api.load_job(written(folder, **engine))
    return make_plan(job, open_model(str(folder / "m.onnx")).signature, where)


def test_another_provider_or_option_is_another_run_and_another_gpu_is_not(tmp_path: Path) -> None:
    cuda, second = (Device("CUDAExecutionProvider", index, {"use_tf32": "1"}) for index in (0, 1))
    exact = Device("CUDAExecutionProvider", 0, {"use_tf32": "0"})
    one, other, strict, cpu = (planned(tmp_path, device).fingerprint for device in (cuda, second, exact, CPU))
    assert one == other
    assert len({one, strict, cpu}) == 3


def test_tensorrt_builds_one_engine_for_all_batches(tmp_path: Path) -> None:
    device = Device("TensorrtExecutionProvider", 0, {})
    plan = with_engine_shapes(planned(tmp_path, device, device="tensorrt", batch_rows=64))
    assert plan.device.options == {
        "trt_profile_min_shapes": "x:1x3",
        "trt_profile_opt_shapes": "x:64x3",
        "trt_profile_max_shapes": "x:64x3",
    }
    with pytest.raises(ContractError, match="largest batch"):
        with_engine_shapes(planned(tmp_path, device, device="tensorrt"))
    own = Device("TensorrtExecutionProvider", 0, {"trt_profile_max_shapes": "x:8x3"})
    asked = planned(tmp_path, own, device="tensorrt")
    assert with_engine_shapes(asked) is asked


def test_heavy_operators_on_the_cpu_are_told_or_forbidden() -> None:
    light = Placement("P", {"Conv": 3}, left={"Shape": 2, "Gather": 1})
    heavy = Placement("P", {"Relu": 3}, left={"FusedConv": 2, "TreeEnsembleRegressor": 1, "Shape": 4})
    assert [told_of(light, policy) for policy in ("warn", "allow", "forbid")] == [None, None, None]
    told = told_of(heavy, "warn")
    assert told is not None
    assert "runs 3 of 10 nodes, and leaves to the CPU 2 FusedConv, 1 TreeEnsembleRegressor" in told
    assert told_of(heavy, "allow") is None
    with pytest.raises(DeviceError, match="2 FusedConv, 1 TreeEnsembleRegressor, and 1 other kinds"):
        told_of(heavy, "forbid")
    both = all_placements([light, heavy])
    assert both is not None
    assert (both.nodes, both.heavy) == ({"Conv": 3, "Relu": 3}, heavy.heavy)


def test_where_nobody_knows_what_runs_on_the_device_forbid_is_an_error() -> None:
    unknown = Placement("P", None, "not told")
    assert told_of(unknown, "warn") is None
    with pytest.raises(DeviceError, match="doesn't tell"):
        told_of(unknown, "forbid")
