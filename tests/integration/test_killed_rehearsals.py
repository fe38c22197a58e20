"""What a killed rehearsal leaves is found and removed; a living one's place never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from batchonnx import api
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.rehearsal.rehearse import PREFIX
from tests.integration.test_rehearsals import make_job, make_job_in_store, names, table
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROOT = Path(__file__).parents[2]

REHEARSING = """
import sys, time
from batchonnx import api
from batchonnx.ledger.outputs import output_at
from batchonnx.rehearsal.scratch import into, scratch_place
job = api.load_job(sys.argv[1])
with scratch_place(job) as place:
    api.run(into(job, place, "tried"))
    print(place, flush=True)
    time.sleep(600)
"""


@contextmanager
def rehearsing(job: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has written into its scratch place, and stays."""
    command = [sys.executable, "-c", REHEARSING, str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def write_input(folder: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table(), folder / "in.parquet", row_group_size=10_000)


def test_clean_removes_what_a_killed_rehearsal_left_and_no_living_one_s(tmp_path: Path) -> None:
    write_input(tmp_path)
    job, output = make_job(tmp_path), tmp_path / "out/scores"
    before = names(tmp_path)
    with rehearsing(job) as (process, place):
        assert api.clean(output) == []
        assert any(Path(place).rglob("*.parquet"))
        process.kill()
    (cleared,) = api.clean(output)
    assert (cleared.path, cleared.what) == (place, "what a killed rehearsal has left")
    assert cleared.bytes is not None
    assert cleared.bytes > 100_000
    assert [name for name in names(tmp_path) if name != "out"] == before


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "s3a", "local"])
def test_so_it_does_in_stores(
    tmp_path: Path, scheme: str, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    use_store(s3)
    write_input(tmp_path)
    if scheme == "local":
        output = f"local://{tmp_path}/store/out"
        job = make_job(tmp_path, output=output)
    else:
        job = make_job_in_store(tmp_path, s3_folder)
        output = f"{s3_folder}/out".replace("s3:", f"{scheme}:")
    if scheme != "s3":
        job.write_text(
            job.read_text()
            .replace(f"{{path: {s3_folder}/out}}", f"{{path: {output}}}")
            .replace(f"path: {output}}}", f"path: {output}, single_writer: trusted}}")
        )
    with rehearsing(job) as (process, place):
        assert place.startswith(output.removesuffix("out"))
        assert api.clean(output) == []
        process.kill()
    assert [cleared.path for cleared in api.clean(output)] == [place]
    if scheme == "local":
        assert not [name for name in names(tmp_path / "store") if "rehearsal" in name]
    else:
        left = ObjectFolder(s3_folder)
        assert not [entry.key for entry in left.list() if "rehearsal" in entry.key]
        assert not list(left.uploads())


def tries_of(asker: int) -> list[Path]:
    """Temporary folders of the processes that a command has asked to try something."""
    folders = Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
    return [folder for folder in folders if f'"pid": {asker},' in asked(folder)]


def asked(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "asked.json").read_text()
    return ""


def process_in(folder: Path) -> int | None:
    """The process that tries something there."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (place / "cmdline").read_bytes():
                return int(place.name)
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["plan", "--probe", "--budget", "30s"], ["tune", "--budget", "60s"], ["chaos"]],
    ids=["plan --probe", "tune", "chaos"],
)
def test_the_next_rehearsal_removes_what_a_killed_one_has_left(tmp_path: Path, command: list[str]) -> None:
    """With its processes, one of which stands still: `chaos` has them do that."""
    write_input(tmp_path)
    job = make_job(tmp_path)
    before = names(tmp_path)
    line = [sys.executable, "-m", "batchonnx", command[0], str(job), *command[1:]]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        tried: int | None = None
        while process.poll() is None:
            folders = tries_of(process.pid)
            tried = process_in(folders[0]) if folders else None
            has_begun = any((tmp_path / "out").rglob("plan.json"))
            if has_begun and (tried is not None or command[0] == "tune"):
                break
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        if tried is not None:
            os.kill(tried, signal.SIGSTOP)
        process.kill()
    assert any((tmp_path / "out").glob(".scores.rehearsal-*"))
    while tried is not None and Path(f"/proc/{tried}").exists():
        time.sleep(0.01)
    forecast = [sys.executable, "-m", "batchonnx", "plan", str(job), "--probe", "--budget", "1s", "--json"]
    done = subprocess.run(forecast, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [name for name in names(tmp_path) if name != "out"] == before
    assert not tries_of(process.pid)
