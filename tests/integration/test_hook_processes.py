"""Hooks in processes of their own give what they give in the workers; a row that ends one costs one row."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import helper

from batchonnx import api
from batchonnx.errors import HookError, HookRaised
from batchonnx.job.load import job_from_dict
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.stream import arrays_of, from_bytes, of_arrays, to_bytes
from tests import models
from tests.waiting import until

ROWS, BATCH = 240, 8

HOOKS = """
import os
import numpy as np
import pyarrow as pa

def encode(rows):
    values = rows.column("v").to_numpy()
    if (values == 111).any():
        raise ValueError("nobody can have measured 111")
    if (values == 222).any():
        os.kill(os.getpid(), 9)
    text = np.array([str(v) for v in values], object)
    return {"x": np.stack([values, np.full(len(values), os.getpid())], 1), "t": text}

def decode(y, t):
    if (y[:, 0] == 77).any():
        raise ValueError("77 is no answer")
    if (y[:, 0] == 133).any():
        raise KeyboardInterrupt
    if (y[:, 0] == 177).any():
        os._exit(5)
    return pa.array([f"{text}!" for text in t])

def wrong(rows):
    return np.zeros(3)

def stuck(rows):
    with open("stuck.pid", "x") as file:
        print(os.getpid(), file=file, flush=True)
        while True:
            pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["t"], ["u"])]
    inputs = [models.value("x", "float64", ["n", 2]), models.value("t", "string", ["n"])]
    outputs = [models.value("y", "float64", ["n", 2]), models.value("u", "string", ["n"])]
    models.save(tmp_path / "m.onnx", nodes, inputs, outputs)
    (tmp_path / "hooks_apart.py").write_text(HOOKS)
    return tmp_path


def _job(folder: Path, values: Any = None, **more: Any) -> Any:
    """values: None for those that are there."""
    if values is not None:
        pq.write_table(pa.table({"v": np.asarray(values, np.float64)}), folder / "rows.parquet")
    feature = {"columns": ["v"], "python": "hooks_apart:encode", "inputs": ["x", "t"]}
    spec = {
        "model": {"path": "m.onnx"},
        "input": {"path": "rows.parquet"},
        "features": {"all": feature},
        "outputs": {"y": {"from": "y"}, "told": {"from": ["y", "u"], "python": "hooks_apart:decode"}},
        "output": {"path": "out", "overwrite": True},
        "engine": {"workers": 2, "batch_rows": BATCH, "hook_processes": 3},
        "keep": ["v"],
    }
    return job_from_dict({**spec, **more}, folder)


def test_hooks_run_in_processes_that_end_with_the_run_and_change_nothing_of_its_result(folder: Path) -> None:
    values = np.arange(ROWS) + 1000.0
    api.run(_job(folder, values))
    found = api.dataset(folder / "out").to_table()
    pids = {int(pid) for _, pid in found["y"].to_pylist()}
    assert 1 <= len(pids) <= 3
    assert os.getpid() not in pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert found["v"].to_pylist() == [y for y, _ in found["y"].to_pylist()] == values.tolist()
    assert found["told"].to_pylist() == [f"{value}!" for value in values]
    plans = [api.plan(_job(folder, **more)) for more in ({}, {"engine": {"batch_rows": BATCH}})]
    assert plans[0].fingerprint == plans[1].fingerprint


@pytest.mark.slow
def test_a_hook_that_raises_or_dies_costs_the_rows_that_it_cannot_take(folder: Path) -> None:
    values = np.arange(ROWS, dtype=np.float64)
    summary = api.run(_job(folder, values, errors={"max_bad_rows": 5}))
    bad = {77: "ValueError: 77 is no answer", 111: "ValueError: nobody", 177: "its own exit, with code 5"}
    bad |= {222: "SIGKILL", 133: "KeyboardInterrupt"}
    assert summary.quarantined == len(bad)
    (file,) = (folder / "out" / "_batchonnx" / "quarantine").iterdir()
    aside = pq.read_table(file)
    told = dict(zip(aside["batchonnx_row"].to_pylist(), aside["batchonnx_error"].to_pylist(), strict=True))
    assert told.keys() == bad.keys()
    assert all(reason in told[row] for row, reason in bad.items())
    assert api.verify(folder / "out").predicted == ROWS - len(bad)
    assert api.dataset(folder / "out").to_table()["v"].to_pylist() == [v for v in values if v not in bad]


def test_a_hook_that_never_returns_ends_with_a_run_that_is_told_twice_to_stop(folder: Path) -> None:
    stuck = {"all": {"columns": ["v"], "python": "hooks_apart:stuck", "inputs": ["x", "t"]}}
    job = _job(folder, range(10), features=stuck, engine={"workers": 1, "hook_processes": 1})
    (folder / "job.yaml").write_text(yaml.safe_dump(job.job.model_dump(exclude_unset=True, by_alias=True)))
    command = [sys.executable, "-m", "batchonnx", "run", "job.yaml"]
    run = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    told = folder / "stuck.pid"
    until(lambda: told.exists() and told.read_text().endswith("\n"), within_s=30)
    run.send_signal(signal.SIGINT)
    assert run.stderr is not None
    assert any(line.startswith("stopping: ") for line in run.stderr)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=30) == -signal.SIGINT
    until(lambda: not Path(f"/proc/{told.read_text().strip()}").exists(), within_s=30)


def test_what_is_wrong_with_a_hook_is_told_as_if_it_ran_here(folder: Path) -> None:
    wrong = {"all": {"columns": ["v"], "python": "hooks_apart:wrong", "inputs": ["x", "t"]}}
    with pytest.raises(HookError, match="returned other inputs"):
        api.run(_job(folder, range(10), features=wrong))
    with pytest.raises(HookRaised) as caught:
        api.run(_job(folder, range(100, 120)))
    facts = caught.value.problems[0].facts
    assert facts["row"] == "11"
    assert "hooks_apart.py" in facts["at"]


_DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "u2", "i8", "?"])


@settings(max_examples=40, deadline=None)
@given(_DTYPES.flatmap(lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_arrays_of_any_shape_come_back_as_they_were(array: np.ndarray) -> None:
    text = np.array(["", "ü"], object)
    found = arrays_of(from_bytes(to_bytes(of_arrays({"a": array, "t": text}))))
    assert found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["a"], array)
    assert found["t"].tolist() == text.tolist()


def test_bad_rows_travel_with_all_that_was_found() -> None:
    bad = BadRow(2, "v", "too small", lambda: ((row, f"row {row}") for row in (5, 7)))
    again = pickle.loads(pickle.dumps(bad))
    found = [(one.row, one.reason) for one in again.moved(10).each()]
    assert found == [(12, "too small"), (15, "row 5"), (17, "row 7")]
