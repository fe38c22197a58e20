"""Real wheels of ONNX Runtime for other devices, on this machine, whatever it has of those.

CUDA's is met by a driver and libraries that are made here, and refuse (see `tests.fake_cuda`); OpenVINO's
runs models on any CPU, as a wheel of its own; a plugin does that beside the wheel for CPUs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchonnx
from batchonnx.runtime.providers import CUDA, OPENVINO, TENSORRT, Provider
from batchonnx.runtime.wheels import installed_wheels
from tests import fake_cuda, models
from tests.site import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the wheels and the stand-ins are Linux's"),
]

FETCH_S = 300


def fetched(folder: Path, *requirements: str) -> Path:
    """Packages without what they require, in a folder. Skips the tests if they can't be fetched."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run(
        [*command, *requirements], capture_output=True, text=True, check=False, timeout=FETCH_S
    )
    if done.returncode != 0:
        pytest.skip(f"{requirements[0]} can't be fetched here: {done.stderr.strip()[-200:]}")
    return folder


def with_wheel(folder: Path, *requirements: str) -> Site:
    """This environment with another wheel of ONNX Runtime."""
    site = Site(folder / "site")
    for wheel in ("onnxruntime-", "onnxruntime_gpu-", "onnxruntime_openvino-"):
        site.remove(wheel)
    (site.folder / "onnxruntime").unlink(missing_ok=True)
    site.link(fetched(folder / "wheel", *requirements))
    return site


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Site:
    # CUDA's runtime is real: it is what asks the driver.
    return with_wheel(tmp_path_factory.mktemp("cuda"), "onnxruntime-gpu>=1.31", "nvidia-cuda-runtime~=13.0")


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return with_wheel(tmp_path_factory.mktemp("openvino"), "onnxruntime-openvino>=1.24")


Libraries = Callable[..., str]


@pytest.fixture(scope="module")
def libraries(cuda: Site, tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """LD_LIBRARY_PATH with a driver, and what CUDA's wheels have; cuDNN: whether that is there as well."""
    folder = tmp_path_factory.mktemp("libraries")
    driver = fake_cuda.driver(folder / "driver")
    provider = cuda.folder / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    mathematics = {
        cudnn: fake_cuda.libraries(folder / f"cudnn-{cudnn}", provider, cudnn=cudnn)
        for cudnn in (False, True)
    }
    return lambda cudnn=True: f"{driver}{os.pathsep}{mathematics[cudnn]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = pa.table({f"f{i}": np.linspace(-i, 3, 5000, dtype=np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=1000)
    models.linear(tmp_path / "m.onnx")
    return tmp_path


def write_job(folder: Path, **engine: Any) -> str:
    job = {
        "model": {"path": "m.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
        "engine": engine,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return "job.yaml"


def refused(site: Site, folder: Path, env: dict[str, str], **engine: Any) -> list[dict[str, Any]]:
    """The problems of a run that must not begin, and leaves nothing."""
    job = write_job(folder, **engine)
    before = sorted(folder.rglob("*"))
    done = site.run("run", job, "--json", cwd=folder, **env)
    assert done.returncode == 3, done.stdout + done.stderr
    assert sorted(folder.rglob("*")) == before
    # Nothing but the error: ONNX Runtime would write of a session on the CPU.
    told = json.loads(done.stdout or done.stderr)
    assert told["error"] == "DeviceError"
    found: list[dict[str, Any]] = told["problems"]
    return found


def test_without_a_driver_and_cuda_both_are_named(cuda: Site, folder: Path) -> None:
    driver, libraries = refused(cuda, folder, {"LD_LIBRARY_PATH": ""}, device="cuda")
    assert driver["title"] == "there is no NVIDIA driver here"
    assert "libcuda.so.1" in driver["facts"]["missing"]
    assert "libcudnn.so.9" in libraries["facts"]["missing"]
    assert "onnxruntime-gpu[cuda,cudnn]" in libraries["fix"]
    (told,) = [line for line in checked(cuda, folder) if line["check"] == "gpu"]
    assert told["level"] == "hint"
    assert driver["title"] in told["found"]
    assert told["fix"] == driver["fix"]


def checked(site: Site, folder: Path, **env: str) -> list[dict[str, str]]:
    """What the doctor tells of this machine."""
    done = site.run("doctor", "--json", cwd=folder, **env)
    found: list[dict[str, str]] = json.loads(done.stdout)["here"]
    return found


@pytest.mark.parametrize(
    ("env", "device", "title", "told"),
    [
        ({"FAKE_CU_INIT": "100"}, "cuda", "the NVIDIA driver sees no GPU", "answers 100"),
        ({"FAKE_CU_INIT": "803"}, "cuda", "the NVIDIA driver doesn't start", "answers 803"),
        ({"FAKE_CU_VERSION": "12040"}, "cuda", "driver is too old for this onnxruntime-gpu", "CUDA 12.4"),
        ({"FAKE_CU_GPUS": "2"}, "cuda:2", "there is no GPU 2 here", "0: Fake GPU, 1: Fake GPU"),
    ],
)
def test_what_the_driver_answers_is_told(
    cuda: Site, libraries: Libraries, folder: Path, env: dict[str, str], device: str, title: str, told: str
) -> None:
    (problem,) = refused(cuda, folder, {"LD_LIBRARY_PATH": libraries(), **env}, device=device)
    assert title in problem["title"]
    assert told in problem["facts"]["found"]


def test_missing_libraries_alone_are_named(cuda: Site, libraries: Libraries, folder: Path) -> None:
    without = {"LD_LIBRARY_PATH": libraries(cudnn=False)}
    (cudnn,) = refused(cuda, folder, without, device="cuda")
    assert (cudnn["title"], cudnn["facts"]["missing"]) == (
        "cuDNN isn't installed for CUDAExecutionProvider",
        "libcudnn.so.9",
    )
    whole = {"LD_LIBRARY_PATH": libraries()}
    (tensorrt,) = refused(cuda, folder, whole, device="tensorrt", batch_rows=8)
    assert tensorrt["title"] == "TensorRT isn't installed for TensorrtExecutionProvider"
    assert "tensorrt-cu13" in tensorrt["fix"]
    (told,) = [line for line in checked(cuda, folder, **without) if line["check"] == "gpu"]
    assert (told["level"], "cuDNN isn't installed" in told["found"]) == ("bad", True)


def test_what_the_provider_itself_refuses_is_told_in_its_words(
    cuda: Site, libraries: Libraries, folder: Path
) -> None:
    """Nothing is missing, as far as can be seen: the session is what fails, and isn't the CPU's instead."""
    env = {"LD_LIBRARY_PATH": libraries()}
    (device,) = refused(cuda, folder, env, device="cuda")
    assert "CUDA failure" in device["facts"]["found"]
    (option,) = refused(cuda, folder, env, device="cuda", provider_options={"use_tf23": 1})
    assert option["title"] == 'CUDAExecutionProvider has no option "use_tf23"'
    assert option["fix"] == 'did you mean "use_tf32"?'
    (number,) = refused(cuda, folder, env, device="cuda", provider_options={"device_id": 1})
    assert number["fix"] == "say engine.device: cuda:N"


def test_auto_runs_on_the_cpu_and_says_why(cuda: Site, folder: Path) -> None:
    done = cuda.run("run", write_job(folder, device="auto"), "--json", cwd=folder, LD_LIBRARY_PATH="")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["device"] == "cpu"
    assert any("auto is cpu: there is no NVIDIA driver here" in note for note in told["notes"])


@pytest.mark.parametrize("provider", [CUDA, TENSORRT], ids=lambda provider: str(provider.name))
def test_the_options_that_are_advised_are_the_providers(cuda: Site, provider: Provider) -> None:
    name = provider.name.removesuffix("ExecutionProvider").lower()
    library = cuda.folder / "onnxruntime" / "capi" / f"libonnxruntime_providers_{name}.so"
    words = set(re.findall(rb"[a-z0-9_]{6,}", library.read_bytes()))
    asked = {*provider.known, *provider.options, *provider.refused}
    assert {option for option in asked if option.encode() not in words} == set()


def scores(folder: Path) -> np.ndarray:
    """A result's predictions, [n, 2]."""
    column = batchonnx.dataset(folder / "out").to_table()["scores"].combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, 2)


def test_openvino_scores_a_job_as_the_cpu_does(openvino: Site, folder: Path) -> None:
    batchonnx.run(folder / write_job(folder))
    cpu = scores(folder)
    job = write_job(folder, device="openvino", fallback="forbid", workers=2, batch_rows=256)
    again = openvino.run("run", job, cwd=folder)
    assert again.returncode == 2, "other bits are another run"
    done = openvino.run("run", job, "--json", "--overwrite", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["device"], told["predicted"], told["notes"]) == ("openvino", 5000, [])
    np.testing.assert_allclose(scores(folder), cpu, rtol=1e-4, atol=1e-5)
    proof = openvino.run("verify", "out", "--deep", cwd=folder)
    assert proof.returncode == 0, proof.stderr
    card = openvino.run("model", "inspect", "m.onnx", "--json", cwd=folder)
    (placed,) = [one for one in json.loads(card.stdout)["placement"] if one["provider"] == OPENVINO.name]
    assert placed["nodes"] == {"Gemm": 1}


def test_openvino_refuses_a_device_and_an_option_that_it_hasnt(openvino: Site, folder: Path) -> None:
    (device,) = refused(openvino, folder, {}, device="openvino", provider_options={"device_type": "GPU.9"})
    assert "device_type: GPU.9" in device["facts"]["options"]
    assert "GPU" in device["facts"]["found"]
    (option,) = refused(openvino, folder, {}, device="openvino", provider_options={"num_stream": 1})
    assert option["fix"] == 'did you mean "num_streams"?'
    (provider,) = refused(openvino, folder, {}, device="cuda")
    assert "pip uninstall -y onnxruntime-openvino" in provider["fix"]


@pytest.mark.skipif([*installed_wheels()] != ["onnxruntime"], reason="the plugin is for the CPU's wheel")
def test_a_plugin_scores_a_job_and_what_it_leaves_to_the_cpu_is_told(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    site = Site(folder.parent / f"{folder.name}-site")
    plugin = fetched(tmp_path_factory.mktemp("plugin"), "onnxruntime-ggml==0.2.0")
    library = str(next(plugin.rglob("libonnxruntime_ggml.so")))
    batchonnx.run(folder / write_job(folder))
    cpu = scores(folder)
    device = f"plugin:{library}"
    whole = site.run("run", write_job(folder, device=device, fallback="forbid"), "--overwrite", cwd=folder)
    assert whole.returncode == 0, whole.stderr
    # Its weights are halves.
    np.testing.assert_allclose(scores(folder), cpu, rtol=1e-2, atol=1e-2)
    shutil.rmtree(folder / "out")
    cosh = onnx.helper.make_node("Cosh", ["scores"], ["cosh"])
    model = onnx.load(folder / "m.onnx")
    model.graph.node.append(cosh)
    model.graph.output.append(models.value("cosh", "float32", ["n", 2]))
    onnx.save(model, folder / "m.onnx")
    (problem,) = refused(site, folder, {}, device=device, fallback="forbid")
    assert "1 Gemm" in problem["facts"]["found"]
    done = site.run("run", write_job(folder, device=device), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["device"] == "plugin:libonnxruntime_ggml.so"
    assert any("leaves to the CPU 1 Gemm" in note for note in told["notes"])
