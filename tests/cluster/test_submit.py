"""Jobs handed to a real head, through its dashboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.ledger.object_folder import ObjectFolder
from tests import models
from tests.cluster.head import Head, running_head
from tests.cluster.shown import everything_shown
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROWS, FILES = 30_000, 4
TOKEN = "d1st1nct1vet0ken" * 4
HOOK = """
import pathlib, time

def encode(batch):
    while pathlib.Path({gate!r}).exists():
        time.sleep(0.05)
    return batch.column("f0").to_numpy(zero_copy_only=False).astype("float32")[:, None].repeat(3, axis=1)
"""


@pytest.fixture(scope="module")
def head(s3: S3Server) -> Iterator[Head]:
    """Two CPUs; its jobs find the store."""
    with running_head(s3.access.env() | {"NO_PROXY": "127.0.0.1,localhost"}) as running:
        yield running


def environment(head: Head | None, **more: str) -> dict[str, str]:
    """Of somebody at a terminal elsewhere: no cluster's token, no store's keys."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    env |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parents[2])}
    if head is not None:
        env["RAY_ADDRESS"] = head.url
    return env | more


def start(head: Head | None, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "batchonnx", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(head, **more),
        start_new_session=True,
    )


def call(head: Head | None, *arguments: str, code: int = 0, **more: str) -> str:
    process = start(head, *arguments, **more)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return out + err


def call_json(head: Head | None, *arguments: str, code: int = 0, **more: str) -> dict[str, object]:
    process = start(head, *arguments, "--json", **more)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return json.loads(out)  # type: ignore[no-any-return]


def make_job(folder: Path, *, output: str = "out", data: str = "data", extra: str = "") -> Path:
    """Four files that are a shard each; the hook waits while the file `gate` is there."""
    folder.mkdir(exist_ok=True)
    models.linear(folder / "model.onnx")
    (folder / "data").mkdir(exist_ok=True)
    for number in range(FILES):
        columns = np.random.default_rng(number).standard_normal((3, ROWS))
        rows = pa.table({"f0": columns[0].astype(np.float32), "w": columns[1], "z": columns[2]})
        pq.write_table(rows, folder / "data" / f"{number}.parquet")
    (folder / "waiting.py").write_text(HOOK.format(gate=str(folder / "gate")))
    (folder / "job.yaml").write_text(
        f"name: waiting\nmodel: {{path: model.onnx}}\ninput: {{path: {data}}}\n"
        "features: {x: {columns: [f0], python: waiting:encode}}\nkeep: [f0, w, z]\n"
        f"output: {{path: '{output}'}}\nengine: {{workers: 1, batch_rows: 512}}\n{extra}"
    )
    return folder / "job.yaml"


def wait_for(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError(what)


def test_submit_detach_stop_and_submit_again_ends_as_an_undisturbed_run(head: Head, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    (tmp_path / "job" / "gate").touch()
    follower = start(head, "submit", str(job), "--follow")
    assert follower.stdout is not None
    told = follower.stdout.readline()
    assert told.startswith("submitted: waiting-"), follower.communicate()
    name = told.split()[-1]
    assert name.endswith("-1")
    log = start(head, "logs", name, "-f")
    wait_for(lambda: call_json(head, "status", name)["progress"], "progress is told")
    os.killpg(follower.pid, signal.SIGINT)  # the terminal's Ctrl-C
    _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "the job goes on" in err
    assert call_json(head, "status", str(job))["status"] == "running"
    again = call_json(head, "submit", str(job))
    assert (again["id"], again["is_new"]) == (name, False)

    stopping = start(head, "stop", name)
    drained = "stopping: what is scored is kept"
    wait_for(lambda: drained in call(head, "logs", name), "the driver has heard it")
    (tmp_path / "job" / "gate").unlink()  # the shard in work may end, and is kept
    out, _ = stopping.communicate(timeout=60)
    assert out == f"{name}: stopped\n"
    told = log.communicate(timeout=60)[0]
    assert "kept  1 of 4 shards" in told, told
    assert not (tmp_path / "job" / "out").exists()
    assert call_json(head, "wait", name, code=130)["exit_code"] == 130

    done = call_json(head, "submit", str(job), "--follow")
    assert done["id"] == name.removesuffix("-1") + "-2"
    summary = done["summary"]
    assert isinstance(summary, dict)
    assert (summary["predicted"], summary["resumed"]) == (ROWS * FILES, 1)
    assert api.verify(tmp_path / "job" / "out").predicted == ROWS * FILES
    parts = {part.name: part.read_bytes() for part in (tmp_path / "job" / "out").glob("*.parquet")}
    api.run(job, fresh=True)
    assert parts == {part.name: part.read_bytes() for part in (tmp_path / "job" / "out").glob("*.parquet")}
    listed = call(head, "list")
    assert listed.index(f"{done['id']}  succeeded") < listed.index(f"{name}  stopped")
    call(head, "wait", str(done["id"]))


def test_two_submits_at_the_same_second_are_one_job(head: Head, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    (tmp_path / "job" / "gate").touch()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: call_json(head, "submit", str(job)), range(4)))
    assert len({one["id"] for one in found}) == 1
    assert sorted(bool(one["is_new"]) for one in found) == [False, False, False, True]
    (tmp_path / "job" / "gate").unlink()
    assert "120,000 predicted" in call(head, "wait", str(found[0]["id"]))
    listed = [one for one in json.loads(call(head, "list", "--json")) if one["output"] == f"{job.parent}/out"]
    assert len(listed) == 1


def test_a_job_in_a_bucket_travels_with_its_hook_and_shows_no_secret(
    head: Head, s3: S3Server, s3_folder: str, use_store: UseStore, tmp_path: Path
) -> None:
    """Its folder is gone before it runs again; keys are the cluster's own, and in nothing that it shows."""
    use_store(s3)

    job = make_job(tmp_path / "job", output=f"{s3_folder}/out", data=f"{s3_folder}/data")
    store = ObjectFolder(s3_folder)
    for file in (tmp_path / "job" / "data").iterdir():
        store.put(f"data/{file.name}", file.read_bytes())
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "wJalrDISTINCTIVESECRET",
        "RAY_AUTH_TOKEN": TOKEN,
        "AWS_ACCESS_KEY_ID": "AKIADISTINCTIVE",
    }
    done = call_json(head, "submit", str(job), "--follow", "--exclude", "data", **secrets)
    assert done["status"] == "succeeded"
    shown = everything_shown(head)
    assert str(done["id"]).encode() in shown
    for secret in (*secrets.values(), s3.secret):
        assert secret.encode() not in shown, secret
    assert api.verify(f"{s3_folder}/out").predicted == ROWS * FILES


def test_a_driver_s_exit_code_is_the_command_s_own(head: Head, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    (tmp_path / "job" / "waiting.py").write_text("def encode(batch):\n    raise ValueError('no such luck')\n")
    told = call(head, "submit", str(job), "--follow", code=2)
    assert "no such luck" in told
    name = told.split("submitted: ")[1].split()[0]
    assert call_json(head, "wait", name, code=2)["error"] == "DriverError"
    assert "exit code 2" in call(head, "status", name)


def test_what_is_here_and_not_on_the_cluster_is_said_with_the_driver_s_code(
    head: Head, tmp_path: Path
) -> None:
    """A model in a home folder, and a module beside this Python: the head has others."""
    job = make_job(tmp_path / "job")
    home = tmp_path / "home"
    home.mkdir()
    models.linear(home / "mine.onnx")
    text = job.read_text()
    job.write_text(text.replace("path: model.onnx", "path: ~/mine.onnx"))
    error = call_json(head, "submit", str(job), "--follow", code=2, HOME=str(home))
    (problem,) = error["problems"]  # type: ignore[misc]
    assert problem["title"] == "the model isn't there"
    assert problem["facts"]["path"] == f"{head.folder}/mine.onnx"

    job.write_text(text)
    (home / "only_here.py").touch()
    (job.parent / "waiting.py").write_text("import only_here\n\ndef encode(batch):\n    return batch\n")
    path = f"{home}:{Path(__file__).parents[2]}"
    error = call_json(head, "submit", str(job), "--follow", code=2, PYTHONPATH=path)
    (problem,) = error["problems"]  # type: ignore[misc]
    assert problem["title"] == "importing the hook waiting:encode failed"
    assert problem["facts"]["found"] == "No module named 'only_here'"


def test_what_no_node_has_is_said_within_seconds(head: Head, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    error = call_json(head, "submit", str(job), "--resource", "tpu=1", code=3)
    (problem,) = error["problems"]  # type: ignore[misc]
    assert problem["facts"]["expected"] == "tpu 1"
    assert problem["facts"]["found"] == "tpu 0 at most"
    assert "is pending" in call(head, "stop", problem["facts"]["job"])


def test_a_job_that_the_cluster_doesn_t_know_is_an_error(head: Head, tmp_path: Path) -> None:
    assert "the cluster knows no such job" in call(head, "status", "nobody-1", code=3)
    for command in ("logs", "stop", "wait"):
        assert call_json(head, command, "nobody-1", code=3)["error"] == "ClusterError"
    job = make_job(tmp_path / "job")
    assert "no job that writes there" in call(head, "status", str(job), code=3)


def test_an_environment_of_other_versions_is_refused_before_any_work(head: Head, tmp_path: Path) -> None:
    """The submitting side has another onnxruntime, by its metadata."""
    job = make_job(tmp_path / "job")
    info = tmp_path / "site" / "onnxruntime-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.0.1\n")
    path = f"{tmp_path / 'site'}:{Path(__file__).parents[2]}"
    error = call_json(head, "submit", str(job), code=3, PYTHONPATH=path)
    (problem,) = error["problems"]  # type: ignore[misc]
    assert problem["facts"]["here"] == "onnxruntime 0.0.1"
    assert problem["facts"]["cluster"].startswith("onnxruntime 1.")
    assert not (tmp_path / "job" / ".out.batchonnx").exists()


def test_dependencies_are_prepared_for_the_job(head: Head, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", extra="dependencies: {pip: ['click>=8']}\n")
    assert call_json(head, "submit", str(job), "--follow")["status"] == "succeeded"


def test_a_token_is_wanted_and_the_wrong_one_is_refused(tmp_path: Path) -> None:
    with running_head(token=TOKEN) as head:
        assert "wants a token" in call(head, "list", code=3)
        assert "refuses the token" in call(head, "list", code=3, RAY_AUTH_TOKEN="f" * 64)
        assert call(head, "list", RAY_AUTH_TOKEN=TOKEN) == "no jobs\n"
        file = tmp_path / "token"
        file.write_text(TOKEN)
        job = make_job(tmp_path / "job")
        done = call_json(head, "submit", str(job), "--follow", RAY_AUTH_TOKEN_PATH=str(file))
        assert done["status"] == "succeeded"
