"""NVIDIA's driver, asked: a stand-in for its library that is compiled here, in a process of its own."""

from __future__ import annotations

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


def answer(folder: Path | None, **env: str) -> str:
    found = {"LD_LIBRARY_PATH": str(folder)} if folder is not None else {}
    command = [sys.executable, "-c", ASK]
    return subprocess.run(command, env=env | found, capture_output=True, text=True, check=True).stdout.strip()


def test_its_gpus_are_named_with_their_memory(folder: Path) -> None:
    one, two = (f"Gpu(name='Fake GPU', total_bytes={8 << 30}, bus='0000:{bus}:00.0')" for bus in ("3b", "3c"))
    assert answer(folder, FAKE_CU_GPUS="2", FAKE_CU_VERSION="12040") == (
        f"Driver(cuda=(12, 4), gpus=({one}, {two})) 4"
    )


@pytest.mark.parametrize("code", ["100", "803"])
def test_what_keeps_it_from_starting_is_its_code(folder: Path, code: str) -> None:
    assert answer(folder, FAKE_CU_INIT=code) == f"{code} cuInit answers {code}"
