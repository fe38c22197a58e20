"""The same command again does what is missing; another command is refused, with the difference named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.engines.local import PROGRESS_EVERY_S
from batchonnx.errors import ChangedError, Interrupted, OutputExistsError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models

FILES, FILE_ROWS = 5, 30_000
HOOK = """
import pathlib, sys, time
from scaling import scale

def encode(rows):
    # One file lets nobody pass while its gate is shut.
    while rows.column("id")[0].as_py() >= {last} and pathlib.Path({gate!r}).exists():
        time.sleep(0.01)
    return scale(rows.column("v").to_numpy()).reshape(-1, 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that are a shard each; the last one is the smallest, so that it is scored last."""
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        rows = FILE_ROWS - 10_000 * (number == FILES - 1)
        ids = np.arange(rows) + number * FILE_ROWS
        values = np.random.default_rng(number).standard_normal((3, rows))
        columns = {"id": ids, "v": values[0].astype(np.float32), "w": values[1], "z": values[2]}
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{number}.parquet")
    models.identity(tmp_path / "model.onnx", shape=["n", 1])
    last = (FILES - 1) * FILE_ROWS
    (tmp_path / "encoding.py").write_text(HOOK.format(last=last, gate=str(tmp_path / "gate")))
    (tmp_path / "scaling.py").write_text("def scale(values): return values * 2\n")
    return tmp_path


def job(folder: Path, **changed: Any) -> JobFile:
    spec: dict[str, Any] = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["id", "v"], "python": "encoding:encode"}},
        "keep": ["id", "w", "z"],
        "output": {"path": "out"},
        "engine": {"batch_rows": 512, "workers": 1},
    }
    return job_from_dict(spec | changed, folder=folder)


def parts(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "out").glob("*.parquet")}


@pytest.fixture
def begun(folder: Path) -> Path:
    """A run of which all but the last shard is done."""
    (folder / "gate").touch()
    stop, commits = threading.Event(), folder / ".out.batchonnx" / "_batchonnx" / "commits"

    def stop_at_the_gate(_: object) -> None:
        if not stop.is_set() and len(list(commits.glob("*.json"))) == FILES - 1:
            stop.set()
            # The run looks up before the hook goes on.
            threading.Timer(3 * PROGRESS_EVERY_S, (folder / "gate").unlink).start()

    with pytest.raises(Interrupted) as caught:
        batchonnx.run(job(folder), stop=stop, on_progress=stop_at_the_gate)
    assert caught.value.problems[0].facts["kept"] == f"{FILES - 1} of {FILES} shards"
    assert not (folder / "out").exists()
    return folder


def test_only_what_is_missing_is_done(begun: Path) -> None:
    staged = {path.name: path.stat().st_ino for path in (begun / ".out.batchonnx").glob("*.staged")}
    assert len(staged) == FILES - 1
    summary = batchonnx.run(job(begun))
    assert (summary.resumed, summary.parts) == (FILES - 1, FILES)
    assert summary.model_calls < 2 * FILE_ROWS / 512
    published = {f"{path.name}.staged": path.stat().st_ino for path in (begun / "out").glob("*.parquet")}
    assert staged.items() <= published.items(), "no part was written again"
    found = parts(begun)
    batchonnx.run(job(begun), fresh=True)
    assert parts(begun) == found, "an undisturbed run gives the same bytes"
    batchonnx.verify(begun / "out", deep=True)


def test_what_changes_no_row_may_change_between_two_lives(begun: Path) -> None:
    shutil.move(begun / "model.onnx", begun / "moved.onnx")
    changed = job(
        begun,
        model={"path": "moved.onnx"},
        engine={"batch_rows": 512, "workers": 2},
        errors={"max_bad_rows": 3},
        output={"path": "out", "overwrite": True},
        name="renamed",
    )
    assert batchonnx.run(changed).resumed == FILES - 1


def require_refused(folder: Path, *names: str, **changed: Any) -> dict[str, str]:
    """What is told of the difference; nothing of the former run may be lost by it."""
    with pytest.raises(ChangedError) as caught:
        batchonnx.run(job(folder, **changed))
    (problem,) = caught.value.problems
    told = dict(problem.facts)
    assert told.pop("run").startswith(str(folder / ".out.batchonnx"))
    assert set(told) == set(names)
    assert "--fresh" in problem.fix
    assert len(list((folder / ".out.batchonnx").glob("*.staged"))) == FILES - 1
    return told


def test_a_swapped_model_is_refused_by_its_digests(begun: Path) -> None:
    model = begun / "model.onnx"
    old = hashlib.sha256(model.read_bytes()).hexdigest()
    models.linear(model, width=1, classes=1)
    new = hashlib.sha256(model.read_bytes()).hexdigest()
    told = require_refused(begun, "model", "columns")
    assert told["model"] == f"sha256 {old} -> sha256 {new}"


def test_a_changed_input_file_is_refused_by_its_name(begun: Path) -> None:
    path = begun / "in" / "2.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    told = require_refused(begun, f"input {path}")
    assert f"{FILE_ROWS} rows in 1 row groups" in told[f"input {path}"].split(" -> ")[0]
    assert f"{FILE_ROWS - 1} rows in 1 row groups" in told[f"input {path}"].split(" -> ")[1]


def test_a_rewritten_input_file_of_the_same_size_is_refused(begun: Path) -> None:
    path = begun / "in" / "2.parquet"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    require_refused(begun, f"input {path}")


def test_a_new_and_a_removed_input_file_are_refused(begun: Path) -> None:
    (begun / "in" / "2.parquet").rename(begun / "in" / "7.parquet")
    old, new = (f"input {begun / 'in' / name}.parquet" for name in "27")
    told = require_refused(begun, old, new)
    assert told[old].endswith("-> absent")
    assert told[new].startswith("absent ->")


def test_a_changed_setting_is_refused_by_its_key(begun: Path) -> None:
    told = require_refused(
        begun,
        "input.filter",
        "engine.batch_rows",
        input={"path": "in", "filter": "w > 0"},
        engine={"batch_rows": 256, "workers": 1},
    )
    assert told == {"input.filter": 'absent -> "w > 0"', "engine.batch_rows": "512 -> 256"}


@pytest.mark.parametrize("module", ["encoding", "scaling"])
def test_changed_code_is_refused_by_its_hook(begun: Path, module: str) -> None:
    with (begun / f"{module}.py").open("a") as file:
        file.write("# another line\n")
    require_refused(begun, "hook encoding:encode")


def test_another_library_version_is_refused(begun: Path) -> None:
    path = begun / ".out.batchonnx" / "_batchonnx" / "plan.json"
    record = json.loads(path.read_text())
    record["identity"]["onnxruntime"] = "1.2.3"
    path.write_text(json.dumps(record))
    told = require_refused(begun, "onnxruntime")
    assert told["onnxruntime"].startswith("1.2.3 -> ")


def test_many_differences_are_told_by_the_first_and_their_number(begun: Path) -> None:
    for number in range(20):
        shutil.copy(begun / "in" / "4.parquet", begun / "in" / f"new-{number}.parquet")
    with pytest.raises(ChangedError) as caught:
        batchonnx.run(job(begun))
    assert caught.value.problems[0].facts["and"] == "10 more differences"


def test_fresh_starts_over(begun: Path) -> None:
    models.linear(begun / "model.onnx", width=1, classes=1)
    summary = batchonnx.run(job(begun), fresh=True)
    assert (summary.resumed, summary.parts) == (0, FILES)
    assert not (begun / ".out.batchonnx").exists()


def test_a_finished_run_is_found_done_and_a_changed_one_needs_overwrite(begun: Path) -> None:
    assert batchonnx.run(job(begun)).is_new
    before = parts(begun)
    again = batchonnx.run(job(begun))
    assert (again.is_new, again.model_calls, again.rows_in) == (False, 0, FILES * FILE_ROWS - 10_000)
    models.linear(begun / "model.onnx", width=1, classes=1)
    with pytest.raises(OutputExistsError):
        batchonnx.run(job(begun))
    assert parts(begun) == before
    assert batchonnx.run(job(begun), overwrite=True).is_new


def test_a_part_that_vanished_or_was_cut_is_made_again(begun: Path) -> None:
    first, second = sorted((begun / ".out.batchonnx").glob("*.staged"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    assert batchonnx.run(job(begun)).resumed == FILES - 3
    batchonnx.verify(begun / "out", deep=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format": 99}', "written by a newer batchonnx"),
        ('{"format": 1}', "written by an older batchonnx"),
        ('{"form', "a record of the run is damaged"),
        ("[1]", "a record of the run is damaged"),
        ("", "a record of the run is damaged"),
    ],
)
def test_records_that_cannot_be_read_are_refused_by_their_path(begun: Path, text: str, told: str) -> None:
    record = next((begun / ".out.batchonnx" / "_batchonnx" / "commits").glob("*.json"))
    record.write_text(text)
    with pytest.raises(StorageError, match=told) as caught:
        batchonnx.run(job(begun))
    assert caught.value.problems[0].facts["record"] == str(record)
    assert batchonnx.run(job(begun), fresh=True).resumed == 0
