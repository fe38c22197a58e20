"""Readers who go away and users who press Ctrl-C: the exit code tells what has happened to the result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import Interrupted
from batchonnx.job.load import job_from_dict
from batchonnx.scoring.progress import Progress
from tests import models

ROWS = 1_000
JOB = "model: {path: model.onnx}\ninput: {path: in.parquet}\noutput: {path: out, overwrite: true}\n"
INTERRUPTED = 130


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.row_sum(tmp_path / "model.onnx")
    columns = {f"f{i}": np.arange(ROWS, dtype=np.float32) for i in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def batch(
    folder: Path, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchonnx", *arguments]
    return subprocess.run(command, cwd=folder, stdout=stdout, stderr=stderr, text=True, check=False)


@pytest.fixture
def nobody() -> int:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


COMMANDS: Sequence[Sequence[str]] = [
    ["run", "job.yaml", "--fresh"],
    ["run", "job.yaml", "--fresh", "--json"],
    ["plan", "job.yaml"],
    ["verify", "out"],
    ["explain", "out", "--row", "1"],
    ["init", "model.onnx", "in.parquet"],
    ["schema"],
    ["model", "inspect", "model.onnx"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_has_read_enough_is_no_failure(folder: Path, nobody: int, command: list[str]) -> None:
    assert batch(folder, "run", "job.yaml", "--quiet").returncode == 0
    done = batch(folder, *command, stdout=nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert batchonnx.verify(folder / "out").predicted == ROWS


def test_an_error_keeps_its_exit_code_whoever_reads_it(folder: Path, nobody: int) -> None:
    assert batch(folder, "plan", "nothing.yaml", "--json", stdout=nobody).returncode == 2
    assert batch(folder, "plan", "nothing.yaml", stderr=nobody).returncode == 2
    assert batch(folder, "verify", "nowhere", stdout=nobody, stderr=nobody).returncode == 3


def test_a_run_that_nobody_watches_goes_on(folder: Path, nobody: int) -> None:
    assert batch(folder, "run", "job.yaml", stdout=nobody, stderr=nobody).returncode == 0
    assert batchonnx.verify(folder / "out").predicted == ROWS


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_below_standard_output_is_told_and_the_result_is_published(folder: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = batch(folder, "run", "job.yaml", stdout=full)
    os.close(full)
    assert done.returncode == 3
    assert "standard output can't be written" in done.stderr
    assert batchonnx.verify(folder / "out").predicted == ROWS


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(folder: Path, closed: str) -> None:
    for job, code in (("job.yaml", 0), ("nothing.yaml", 2)):
        command = f"{sys.executable} -m batchonnx run {job} {closed}"
        assert subprocess.run(["sh", "-c", command], cwd=folder, check=False).returncode == code
    assert batchonnx.verify(folder / "out").predicted == ROWS


# Python tells a hook of each module that is imported: what a run is doing then needs no clock.
INTERRUPT_AT = """
import signal, sys

def look(event, arguments):
    if event == "import" and arguments[0] == {module!r} and armed:
        armed.clear()
        signal.raise_signal(signal.SIGINT)

armed = [True]
sys.addaudithook(look)
from batchonnx.cli import main
main()
"""


@pytest.mark.parametrize("command", [["run", "job.yaml"], ["plan", "job.yaml"]], ids=" ".join)
@pytest.mark.parametrize(
    "module",
    [
        "batchonnx.api",
        "numpy",
        "pyarrow",
        "pydantic",
        "onnxruntime",
        "yaml",
        "pyarrow.parquet",
    ],
)
def test_ctrl_c_while_it_starts_ends_with_130(folder: Path, module: str, command: list[str]) -> None:
    script = INTERRUPT_AT.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()
    assert not (folder / ".out.batchonnx").exists()


def test_ctrl_c_is_obeyed_when_all_rows_are_scored_and_nothing_is_published_yet(folder: Path) -> None:
    stopped = folder / "stop"
    hook = f"""
import os, signal

def take(values):
    if not os.path.exists({str(stopped)!r}):
        open({str(stopped)!r}, "w").close()
        os.kill(os.getpid(), signal.SIGINT)
    return values
"""
    (folder / "ending.py").write_text(hook)
    (folder / "job.yaml").write_text(JOB + 'outputs: {y: {from: total, python: "ending:take"}}\n')
    done = batch(folder, "run", "job.yaml")
    assert done.returncode == INTERRUPTED, done.stderr
    assert not (folder / "out").exists()
    assert batch(folder, "run", "job.yaml").returncode == 0
    assert batchonnx.verify(folder / "out").predicted == ROWS


def test_a_signal_whose_word_nobody_reads_ends_the_run_as_any_other(folder: Path, nobody: int) -> None:
    end = "os.kill(os.getpid(), signal.SIGTERM)"
    hook = f"import os, signal\n\ndef take(values):\n    {end}\n    return values\n"
    (folder / "ending.py").write_text(hook)
    (folder / "job.yaml").write_text(JOB + 'outputs: {y: {from: total, python: "ending:take"}}\n')
    assert batch(folder, "run", "job.yaml", stdout=nobody, stderr=nobody).returncode in (
        INTERRUPTED,
        -signal.SIGTERM,  # the second one: each batch sends one
    )
    assert not (folder / "out").exists()


def test_a_run_that_is_told_to_stop_in_its_last_moment_doesnt_publish(folder: Path) -> None:
    import threading

    stop = threading.Event()

    def at_the_end(progress: Progress) -> None:
        if progress.shards == progress.shards_total:
            stop.set()

    spec = {"model": {"path": "model.onnx"}, "input": {"path": "in.parquet"}, "output": {"path": "out"}}
    made = job_from_dict(spec, folder=folder)
    with pytest.raises(Interrupted):
        batchonnx.run(made, stop=stop, on_progress=at_the_end)
    assert not (folder / "out").exists()
    assert batchonnx.run(made).predicted == ROWS
