"""From store to store, killed -9 at more than fifty requests, resumed each time: the undisturbed result.

All the while, a reader that goes by the manifest sees the former result or the new one, whole, and one
that waits for `_SUCCESS` never sees a part of any.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from botocore.exceptions import ClientError

import batchonnx
from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import FILE_ROWS, contents, job_spec, make_input, put_input, require_result, write
from tests.chaos.pollreader import PollReader
from tests.chaos.test_die_at_each_request import copied
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROOT = Path(__file__).parents[2]
DEATHS_FOR_EACH = 18
GONE = -1
"""What a reader counts that finds a file gone: it had gone by the former manifest, or listing."""


@dataclass(frozen=True)
class Act:
    """What is run on top of the act before. change: done to the input first."""

    name: str
    model: str
    options: tuple[str, ...]
    change: Callable[[Path], None]


def nothing(folder: Path) -> None:
    pass


def a_file_fewer(folder: Path) -> None:
    (folder / "in" / "2.parquet").unlink()


def one_changed_one_new(folder: Path) -> None:
    write(folder, 1, FILE_ROWS // 2)
    write(folder, 7)


ACTS = (
    Act("new", "model.onnx", (), nothing),
    Act("overwrite", "other.onnx", (), a_file_fewer),
    Act("incremental", "other.onnx", ("--incremental",), one_changed_one_new),
)


class Readers:
    """Of a result, through a client of their own."""

    def __init__(self, s3: S3Server, output: str) -> None:
        self._client = boto3.client("s3", **s3.access.boto3())
        self._bucket, _, self._prefix = output.removeprefix("s3://").partition("/")

    def by_manifest(self) -> int:
        manifest = self._read("_batchonnx/manifest.json")
        if manifest is None:
            return 0
        return self._rows(p["path"] for c in json.loads(manifest)["commits"] for p in c["parts"])

    def by_mark(self) -> int:
        """Lists when `_SUCCESS` is there; counts only if it is the same one afterwards."""
        mark = self._read("_SUCCESS")
        if mark is None:
            return 0
        page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._prefix}/part-")
        rows = self._rows(entry["Key"].rpartition("/")[2] for entry in page.get("Contents", ()))
        return rows if self._read("_SUCCESS") == mark else GONE

    def _rows(self, names: Any) -> int:
        found = [self._read(name) for name in names]
        if None in found:
            return GONE
        return sum(pq.read_metadata(pa.BufferReader(data)).num_rows for data in found)

    def _read(self, name: str) -> bytes | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return bytes(answer["Body"].read())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_result_is_that_of_an_undisturbed_run(
    s3: S3Server, s3_folder: str, use_store: UseStore, tmp_path: Path
) -> None:
    use_store(s3)
    make_input(tmp_path)
    draw = random.Random(5)
    deaths: Counter[str] = Counter()
    reference, former, before = f"{s3_folder}/reference", 0, ""
    source = f"{s3_folder}/source"
    for act in ACTS:
        act.change(tmp_path)
        put_input(tmp_path, source)
        requests = int(run(tmp_path, act, reference, source, "never", 0)[1].split()[-1])
        rows = batchonnx.verify(reference).predicted
        wanted = contents(reference)
        killed = 0
        while killed < DEATHS_FOR_EACH:
            output = f"{s3_folder}/{act.name}-{killed}"
            if before:
                copied(before, output)
            readers = Readers(s3, output)
            named = {"manifest": readers.by_manifest, "mark": readers.by_mark}
            with PollReader(output, built_in=(), readers=named, pause_s=0.01) as watch:
                for _ in range(4):
                    # Often late: between publishing and the end of a run there are few requests.
                    is_late = draw.random() < 0.3
                    number = draw.randint(requests - 20, requests) if is_late else draw.randint(1, requests)
                    code, _ = run(tmp_path, act, output, source, draw.choice(("before", "after")), number)
                    if code == 0:
                        break
                    assert code == -signal.SIGKILL
                    killed += 1
                    deaths[f"{act.name}: {state(output)}"] += 1
                assert run(tmp_path, act, output, source, "never", 0)[0] == 0
            nothing_yet = {"manifest": former, "mark": 0}
            for name, seen in watch.report.readers.items():
                assert not seen.errors, (name, seen.errors)
                assert set(seen.counts) <= {nothing_yet[name], former, rows, GONE}, (name, seen.changes)
            require_result(output, wanted, rows)
            batchonnx.clean(output)
            require_result(output, wanted, rows)
        before, former = reference + f"-{act.name}", rows
        copied(reference, before)
    print(dict(deaths))
    assert sum(deaths.values()) >= 50
    assert {name.split(": ")[0] for name in deaths} == {act.name for act in ACTS}
    assert {name.split(": ")[1] for name in deaths} >= {"scoring", "publishing", "published"}


def run(folder: Path, act: Act, output: str, source: str, when: str, number: int) -> tuple[int, str]:
    """The command line, up to that request: its exit code, and what it said. It knows no footer."""
    (folder / "job.yaml").write_text(yaml.safe_dump(job_spec(output, act.model, source)))
    command = [sys.executable, "-m", "tests.chaos.dying_s3", when, str(number)]
    command += ["run", str(folder / "job.yaml"), "--quiet", *act.options]
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": tempfile.mkdtemp(dir=folder)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


def state(output: str) -> str:
    """How far the run had come."""
    folder = ObjectFolder(output)
    unfinished = folder.get("_batchonnx/unfinished.json")
    if unfinished is None:
        return "beginning, or done"
    prefix = f"_batchonnx/runs/{json.loads(unfinished[0])['run']}/"
    names = {entry.key.removeprefix(prefix) for entry in folder.list(prefix)}
    manifest = folder.get("_batchonnx/manifest.json")
    if manifest is not None and json.loads(manifest[0])["run"] in prefix:
        return "published"
    return "publishing" if "manifest.json" in names else "scoring"
