"""A row that ends the process is found, put aside, and costs no other row."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import batchonnx
from tests import models

ROWS, BAD = 6_000, 4_321

HOOK = """
import ctypes, os, signal
import numpy as np

def encode(rows):
    values = rows.column("v").to_numpy()
    if (values < 0).any():
        {end}
    return values.astype(np.float32).reshape(-1, 1)
"""
ENDS = {
    "a segmentation fault": ("ctypes.string_at(0)", signal.SIGSEGV, "SIGSEGV"),
    "the kernel, out of memory": ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL, "SIGKILL"),
}

JOB = """
model: {path: model.onnx}
input: {path: in}
features:
  x: {columns: [v], python: "deadly:encode"}
keep: [id]
output: {path: out}
engine: {batch_rows: 500, workers: 2}
errors: {max_bad_rows: 1}
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchonnx", "run", "job.yaml", "--quiet"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("end", ENDS)
def test_the_third_run_finds_the_row_that_ended_the_first_two(tmp_path: Path, end: str) -> None:
    how, number, name = ENDS[end]
    values = np.arange(ROWS, dtype=np.float64)
    values[BAD] = -1
    (tmp_path / "in").mkdir()
    for part in range(3):
        rows = slice(part * 2_000, (part + 1) * 2_000)
        table = pa.table({"id": np.arange(ROWS)[rows], "v": values[rows]})
        pq.write_table(table, tmp_path / "in" / f"{part}.parquet", row_group_size=1_000)
    (tmp_path / "deadly.py").write_text(HOOK.format(end=how))
    models.identity(tmp_path / "model.onnx", "float32", ["n", 1])
    (tmp_path / "job.yaml").write_text(JOB)

    assert [run(tmp_path).returncode for _ in range(2)] == [-number, -number]
    third = run(tmp_path)
    assert third.returncode == 0, third.stderr

    proof = batchonnx.verify(tmp_path / "out")
    assert (proof.predicted, proof.quarantined) == (ROWS - 1, 1)
    (bad,) = pads.dataset(tmp_path / "out" / "_batchonnx" / "quarantine").to_table().to_pylist()
    assert (bad["batchonnx_file"], bad["batchonnx_row"]) == (str(tmp_path / "in" / "2.parquet"), BAD - 4_000)
    assert bad["id"] == BAD
    assert name in bad["batchonnx_error"]
    rows = pads.dataset(tmp_path / "out").to_table().sort_by("id")
    good = np.delete(values, BAD)
    assert rows.column("id").to_numpy().tolist() == np.delete(np.arange(ROWS), BAD).tolist()
    found = rows.column("y").to_numpy()
    np.testing.assert_array_equal(found, good.astype(np.float32))
