"""A disk that is full at any write: told, nothing half-written visible, and resumed when there is space.

A tmpfs counts pages and files exactly, so that each limit lets another write fail: of the lease, the
plan, what the first rows taught, a part, a quarantine, a commit, the manifest.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models

FILES, FILE_ROWS = 4, 20_000
PAGE = 4096
AMPLE = f"size={64 << 20},nr_inodes=10000"
NULL_CODE = 7_000


class Disk:
    """A tmpfs whose limits can be moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def limit(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    @property
    def pages(self) -> int:
        """In use."""
        status = os.statvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize // PAGE

    @property
    def files(self) -> int:
        """In use, folders included."""
        status = os.statvfs(self.folder)
        return status.f_files - status.f_ffree


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", AMPLE, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def job(tmp_path: Path, disk: Disk) -> JobFile:
    """Incompressible rows, in each file one that is put aside."""
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        values = np.random.default_rng(number).integers(0, 1 << 60, FILE_ROWS)
        codes = pa.array(values, mask=np.arange(FILE_ROWS) == NULL_CODE)
        table = pa.table({"id": np.arange(FILE_ROWS) + number * FILE_ROWS, "code": codes, "text": values})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
    models.identity(tmp_path / "model.onnx", "int64", ["n"])
    spec = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["code"]}},
        "keep": ["id", "text"],
        "output": {"path": str(disk.folder / "out")},
        "engine": {"workers": 2},
        "errors": {"max_bad_rows": FILES},
    }
    return job_from_dict(spec, folder=tmp_path)


def contents(output: Path) -> dict[str, str]:
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def used_at_most(disk: Disk, job: JobFile) -> tuple[int, int]:
    """Pages and files that an undisturbed run takes at once, seen from its progress and at its end."""
    pages, files = [], []

    def look(_: object) -> None:
        pages.append(disk.pages)
        files.append(disk.files)

    batchonnx.run(job, on_progress=look)
    look(None)
    return max(pages), max(files)


@pytest.mark.timeout(300)
def test_a_run_goes_on_from_whatever_write_found_the_disk_full(disk: Disk, job: JobFile) -> None:
    output, staged = disk.folder / "out", disk.folder / ".out.batchonnx"
    empty_files = disk.files
    pages, files = used_at_most(disk, job)
    reference = contents(output)
    assert len(reference) == 2 * FILES

    draw = random.Random(11)
    # The last pages and files are those of commits and the manifest.
    sizes = [*range(1, 12), *draw.sample(range(12, pages - 12), 25), *range(pages - 12, pages + 10)]
    limits = [f"size={size * PAGE}" for size in sizes]
    limits += [f"nr_inodes={number}" for number in range(empty_files + 1, files + 4)]
    stages: Counter[str] = Counter()
    for limit in limits:
        disk.limit(AMPLE)
        shutil.rmtree(output)
        disk.limit(limit)
        was_full = run_into(disk, job)
        assert output.exists() != was_full, limit
        stages[stage(staged) if was_full else "enough"] += 1
        committed = len(list(staged.glob("_batchonnx/commits/*.json")))

        disk.limit(AMPLE)
        again = batchonnx.run(job)
        assert again.is_new == was_full
        assert again.resumed >= committed, limit
        assert contents(output) == reference, limit
        assert batchonnx.verify(output).quarantined == FILES
        assert {path.name for path in disk.folder.glob(".*")} == set(), limit
    assert stages.keys() == {"nothing", "beginning", "scoring", "all but the manifest", "enough"}, stages


def run_into(disk: Disk, job: JobFile) -> bool:
    """Run the job; whether the disk was full, as it then has to be told."""
    try:
        batchonnx.run(job)
    except StorageError as error:
        (problem,) = error.problems
        told = (problem.title, str(disk.folder) in problem.facts["path"], "same command" in problem.fix)
        if told == ("the disk is full", True, True):
            return True
        raise
    return False


def stage(staged: Path) -> str:
    """How far a run had come."""
    if not staged.exists():
        return "nothing"
    commits = list(staged.glob("_batchonnx/commits/*.json"))
    if len(commits) == FILES:
        return "complete" if (staged / "_SUCCESS").exists() else "all but the manifest"
    return "scoring" if commits else "beginning"
