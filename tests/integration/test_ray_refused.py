"""Jobs that a Ray cluster can't do: each is told why, once, with the documented exit code."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from batchonnx.cli import main
from tests import models
from tests.cluster.head import running_head
from tests.integration.ray_cluster import add_node, ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NEW_NAMES = 0x04000000
"""CLONE_NEWUTS: a host name of one's own."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(1) as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rows = pa.table({f"f{i}": np.arange(100, dtype=np.float32) for i in range(3)})
    pq.write_table(rows, tmp_path / "in" / "0.parquet")
    models.linear(tmp_path / "model.onnx")
    return tmp_path


def refusal(folder: Path, code: int, env: Mapping[str, str] = {}, **changed: Any) -> str:
    """What is said of a job that works but for what is changed; nothing of it is left.

    env: of a process of its own, which it is run in then: Ray reads some variables once.
    """
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
        "engine": {"name": "ray", "wait_s": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job | changed))
    command = ["run", str(folder / "job.yaml"), "--quiet"]
    if env:
        process = subprocess.run(
            [sys.executable, "-m", "batchonnx", *command],
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=False,
        )
        found, told = process.returncode, process.stderr
    else:
        done = CliRunner().invoke(main, command)
        found, told = done.exit_code, done.stderr
    assert found == code, told
    assert told.count("error: ") == 1, told
    assert not (folder / "out").exists()
    return told


def test_nobody_at_the_address_a_resource_that_no_node_has(cluster: Any, folder: Path) -> None:
    told = refusal(folder, 3, engine={"name": "ray", "address": "127.0.0.1:9"})
    assert "no Ray cluster at the address" in told
    told = refusal(folder, 3, engine={"name": "ray", "resources": {"custom": {"tpu": 1}}, "wait_s": 1})
    assert "no node has the tpu that a worker takes" in told


def test_a_gpu_that_can_t_be_used_is_told_by_the_worker_that_has_it(cluster: Any, folder: Path) -> None:
    node = add_node(cluster, num_gpus=1)
    try:
        engine = {"name": "ray", "device": "cuda", "resources": {"num_gpus": 1}}
        told = refusal(folder, 3, engine=engine)
    finally:
        cluster.remove_node(node)
    assert "the installed ONNX Runtime has no CUDAExecutionProvider" in told
    assert f"on {socket.gethostname()}" in told


def test_a_worker_without_a_gpu_sees_none(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    told = "import os\n\nSEEN = os.environ['CUDA_VISIBLE_DEVICES']\n\n"
    (folder / "hooks_seen.py").write_text(f"{told}def encode(rows):\n    raise OSError(f'sees {{SEEN!r}}')\n")
    features = {"x": {"columns": ["f0"], "python": "hooks_seen:encode"}}
    assert "sees ''" in refusal(folder, 2, features=features)


def test_a_hook_whose_module_isn_t_there_is_told_with_the_worker_s_host(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "only_here", ModuleType("only_here"))
    (folder / "hooks_here.py").write_text("import only_here\n\ndef encode(rows):\n    return rows\n")
    features = {"x": {"columns": ["f0"], "python": "hooks_here:encode"}}
    told = refusal(folder, 2, features=features)
    assert "importing the hook hooks_here:encode failed" in told
    assert "No module named 'only_here'" in told
    assert f"on {socket.gethostname()}" in told


def test_other_versions_on_a_node_are_told_with_both(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has another onnxruntime, by its metadata."""
    info = folder / "site" / "onnxruntime-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.0.1\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder / 'site'}:{os.environ.get('PYTHONPATH', '')}")
        node = add_node(cluster, resources={"odd": 1})
    try:
        told = refusal(folder, 3, engine={"name": "ray", "resources": {"custom": {"odd": 1}}})
    finally:
        cluster.remove_node(node)
    assert f"other versions on {socket.gethostname()} than here" in told
    assert "onnxruntime" in told
    assert "0.0.1, here 1." in told


def test_a_folder_of_one_machine_is_no_output_for_several(cluster: Any, folder: Path) -> None:
    with host_name("elsewhere"):
        node = add_node(cluster)
    try:
        told = refusal(folder, 2)
        assert "the output is a folder of one machine, the cluster has several" in told
        assert "elsewhere" in told
        assert "engine.shared_output: true" in told
        (folder / "job.yaml").write_text(
            (folder / "job.yaml").read_text().replace("wait_s: 1", "wait_s: 60\n  shared_output: true")
        )
        done = CliRunner().invoke(main, ["run", str(folder / "job.yaml"), "--quiet"])
        assert done.exit_code == 0, done.output
    finally:
        cluster.remove_node(node)


def test_a_token_that_is_missing_or_wrong_is_told_and_not_shown(folder: Path) -> None:
    with running_head(token="t" * 64) as head:
        env = {"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "token"}
        wrong = refusal(folder, 3, env | {"RAY_AUTH_TOKEN": "f" * 64})
        none = refusal(folder, 3, env | {"RAY_AUTH_MODE": "disabled"})
    assert "the cluster refuses this token" in wrong
    assert "f" * 64 not in wrong
    assert "the cluster refuses this token" in none
    assert "RAY_AUTH_TOKEN" in none


@contextmanager
def host_name(name: str) -> Iterator[None]:
    """Processes that are started meanwhile are on a machine of another name."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/uts", os.O_RDONLY)
    try:
        if libc.unshare(NEW_NAMES) != 0:
            pytest.skip(f"no host name of one's own: {os.strerror(ctypes.get_errno())}")
        socket.sethostname(name)
        try:
            yield
        finally:
            assert libc.setns(before, NEW_NAMES) == 0
    finally:
        os.close(before)
