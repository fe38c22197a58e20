"""NVIDIA's driver, asked: a stand-in for its library that is compiled here, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fake_cuda

ASK = """
from batchonnx.runtime.cuda import NoDriver, free_bytes, read_driver
try:
    print(read_driver(), free_bytes(0) >> 30)
except NoDriver as error:
    print(error.code, error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cuda.driver(tmp_path_factory.mktemp("driver") / "lib")


ARGUMENTS = """
import json, sys
import onnxruntime
from batchonnx.runtime.device import Device
from batchonnx.runtime.on_device import session_arguments
device = Device(sys.argv[1], 0, {"use_tf32": "0"}, 0.25)
print(json.dumps(session_arguments(device, onnxruntime.SessionOptions(), "abc")["providers"]))
"""


def answer(folder: Path, *arguments: str, ask: str = ASK, **env: str) -> str:
    """What is printed where the driver's stand-in is found; env: all that there is of it."""
    found = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env}
    command = [sys.executable, "-c", ask, *arguments]
    return subprocess.run(command, env=found, capture_output=True, text=True, check=True).stdout.strip()


def test_its_gpus_are_named_with_their_memory(folder: Path) -> None:
    one, two = (f"Gpu(name='Fake GPU', total_bytes={8 << 30}, bus='0000:{bus}:00.0')" for bus in ("3b", "3c"))
    assert answer(folder, FAKE_CU_GPUS="2", FAKE_CU_VERSION="12040") == (
        f"Driver(cuda=(12, 4), gpus=({one}, {two})) 4"
    )


@pytest.mark.parametrize("code", ["100", "803"])
def test_what_keeps_it_from_starting_is_its_code(folder: Path, code: str) -> None:
    assert answer(folder, FAKE_CU_INIT=code) == f"{code} cuInit answers {code}"


LIMIT = str(int((2 << 30) * 0.9))
"""A quarter of 8 GiB, of which 4 are free, less a tenth."""


def test_a_share_of_the_memory_bounds_the_arena(folder: Path) -> None:
    (found,) = json.loads(answer(folder, "CUDAExecutionProvider", ask=ARGUMENTS))
    assert found == ["CUDAExecutionProvider", {"device_id": "0", "gpu_mem_limit": LIMIT, "use_tf32": "0"}]


def test_tensorrt_keeps_engines_by_model_and_gpu_and_leaves_the_rest_to_cuda(
    folder: Path, tmp_path: Path
) -> None:
    told = answer(folder, "TensorrtExecutionProvider", ask=ARGUMENTS, XDG_CACHE_HOME=str(tmp_path))
    tensorrt, cuda = json.loads(told)
    kept = tmp_path / "batchonnx" / "tensorrt" / "abc" / "Fake-GPU"
    assert kept.is_dir()
    assert tensorrt[1]["trt_engine_cache_path"] == tensorrt[1]["trt_timing_cache_path"] == str(kept)
    assert (cuda[0], cuda[1]["gpu_mem_limit"]) == ("CUDAExecutionProvider", LIMIT)
