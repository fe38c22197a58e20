"""Jobs on a real Ray cluster: the same bytes as in this process, and errors that say what is wrong."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.engines.ray.beginning import Beginning
from batchonnx.errors import ClusterError, ContractError, HookError, Interrupted, RowError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import Engine
from batchonnx.ledger.outputs import output_at
from batchonnx.ledger.records import files_of
from tests import models
from tests.detector import detector_job, pictures, save_detector, write_pictures
from tests.integration.ray_cluster import add_node, ray_cluster
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server
from tests.waiting import until

ROWS, FILES, WIDTH = 20_000, 6, 4

HOOK = """
import numpy as np

def encode(rows):
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    if (values > 1e6).any():
        raise ValueError("a value that nobody can have measured")
    return values
"""


ELSEWHERE = """
import os, sys
import numpy as np

HERE = os.environ.get("RAY_JOB_ID") is None and "default_worker" not in " ".join(sys.argv)

def encode(rows):
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    return values if HERE else values * np.float32(1.01)
"""


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[Any]:
    """One raylet at first, a test adds two; the store's credentials are in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.access.env().items():
            patch.setenv(name, value)
        with ray_cluster(1) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def three_raylets(cluster: Any) -> Any:
    while len(cluster.list_all_nodes()) < 3:
        add_node(cluster)
    return cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files with a few bad rows, a hook, and a model."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "in").mkdir()
    rng = np.random.default_rng(5)
    for number in range(FILES):
        columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(WIDTH)}
        columns["f0"][rng.integers(0, ROWS, 2)] = 1e7
        table = pa.table({"id": np.arange(ROWS) + number * ROWS, **columns})
        pq.write_table(table, folder / "in" / f"{number}.parquet", row_group_size=ROWS // 4)
    (folder / "careful.py").write_text(HOOK)
    models.linear(folder / "model.onnx", WIDTH, 3)
    return folder


def job(folder: Path, output: str, **changed: Any) -> dict[str, Any]:
    columns = [f"f{i}" for i in range(WIDTH)]
    return {
        "model": {"path": str(folder / "model.onnx")},
        "input": {"path": str(folder / "in"), "filter": "id > 100"},
        "features": {"x": {"columns": columns, "python": "careful:encode"}},
        "keep": ["id"],
        "output": {"path": str(folder / output), "overwrite": True},
        "errors": {"max_bad_rows": "1%"},
        "engine": {"batch_rows": 250},
    } | changed


def run(folder: Path, spec: dict[str, Any], engine: str) -> Any:
    return api.run(job_from_dict(spec, folder), engine=engine)  # type: ignore[arg-type]


def contents(output: Path) -> dict[str, str]:
    """Name -> digest of whatever holds rows."""
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def reference(folder: Path) -> dict[str, str]:
    run(folder, job(folder, "local"), "local")
    found = contents(folder / "local")
    assert len(found) > FILES
    return found


def test_one_raylet_writes_the_bytes_of_this_process(
    cluster: Any, folder: Path, reference: dict[str, str]
) -> None:
    summary = run(folder, job(folder, "one"), "ray")
    assert (summary.engine, summary.workers, summary.lost) == ("ray", 1, 0)
    phases = (summary.cluster_s, summary.actors_s, summary.start_s, summary.scoring_s)
    assert all(seconds is not None and seconds > 0 for seconds in phases)
    assert summary.quarantined == api.verify(folder / "one").quarantined > 0
    assert contents(folder / "one") == reference


def test_three_raylets_write_the_bytes_of_this_process(
    three_raylets: Any, folder: Path, reference: dict[str, str]
) -> None:
    summary = run(folder, job(folder, "three"), "ray")
    assert summary.workers in (2, 3)  # the third may have been late: it is a short job
    api.verify(folder / "three")
    assert contents(folder / "three") == reference
    assert {path.name for path in folder.glob(".*")} == set()


def test_the_first_job_writes_the_bytes_of_this_process(three_raylets: Any, jobs: Path) -> None:
    output = jobs / "out" / "digits"
    found = []
    for engine in ("local", "ray"):
        shutil.rmtree(output, ignore_errors=True)
        api.run(jobs / "score.yaml", engine=engine)  # type: ignore[arg-type]
        found.append(contents(output))
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.slow
def test_boxes_in_images_are_the_same_on_a_cluster(three_raylets: Any, tmp_path: Path) -> None:
    save_detector(tmp_path / "detector.onnx")
    write_pictures(tmp_path / "pictures.parquet", pictures(40), broken=[7, 21])
    spec = detector_job(resize="letterbox", size=64) | {"errors": {"max_bad_rows": 2}}
    spec["engine"] = {"batch_rows": 5}
    spec["outputs"]["light"]["explode"] = True
    found = []
    for engine in ("local", "ray"):
        run(tmp_path, spec, engine)
        found.append(contents(tmp_path / "out"))
    assert found[0] == found[1]
    assert len(found[0]) > 1


def test_a_drained_run_begins_no_shard_and_goes_on_later(
    three_raylets: Any, folder: Path, reference: dict[str, str]
) -> None:
    drain = threading.Event()
    drain.set()
    with pytest.raises(Interrupted):
        api.run(job_from_dict(job(folder, "drained"), folder), engine="ray", drain=drain)
    assert not (folder / "drained").exists()
    run(folder, job(folder, "drained"), "ray")
    assert contents(folder / "drained") == reference


@pytest.mark.slow
def test_a_bucket_is_given_the_bytes_of_this_process(
    three_raylets: Any, folder: Path, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    use_store(s3)
    found = []
    for engine in ("local", "ray"):
        output = f"{s3_folder}/{engine}"
        spec = job(folder, "") | {"output": {"path": output}, "gate": {"id": {"max_null": "0%"}}}
        summary = run(folder, spec, engine)
        assert api.verify(output).predicted == summary.predicted
        manifest = output_at(output).read_manifest()
        assert manifest is not None
        found.append({(f.path, f.sha256) for commit in manifest.commits for f in files_of(commit)})
    assert found[0] == found[1]
    assert len(found[0]) > FILES


def test_a_run_on_threads_needs_no_ray() -> None:
    code = "import batchonnx.cli.jobs, batchonnx.api, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_too_many_bad_rows_end_the_run_and_another_limit_goes_on(three_raylets: Any, folder: Path) -> None:
    with pytest.raises(RowError) as caught:
        run(folder, job(folder, "bad", errors={"max_bad_rows": 3}), "ray")
    assert caught.value.problems[0].title == "too many rows can't be scored"
    summary = run(folder, job(folder, "bad"), "ray")
    assert api.verify(folder / "bad").quarantined == summary.quarantined


def test_the_first_bad_row_is_named_with_the_worker_s_host(three_raylets: Any, folder: Path) -> None:
    with pytest.raises(HookError) as caught:
        run(folder, job(folder, "none", errors={"max_bad_rows": 0}), "ray")
    facts = caught.value.problems[0].facts
    assert "nobody can have measured" in facts["found"]
    assert facts["worker"].startswith("on ")
    assert facts["file"].startswith(str(folder / "in"))


def test_workers_that_find_something_else_are_refused_by_their_hosts(
    three_raylets: Any, folder: Path
) -> None:
    """As with hardware that computes wrong: here a hook that knows where it runs."""
    (folder / "elsewhere.py").write_text(ELSEWHERE)
    columns = [f"f{i}" for i in range(WIDTH)]
    features = {"x": {"columns": columns, "python": "elsewhere:encode"}}
    with pytest.raises(ClusterError) as caught:
        run(folder, job(folder, "other", features=features), "ray")
    (problem,) = caught.value.problems
    assert problem.title == "every worker finds other predictions than this machine"
    assert socket.gethostname() in problem.facts["worker 1"]
    assert not (folder / "other").exists()


def test_a_resource_that_no_node_has_is_named_against_what_there_is(three_raylets: Any, folder: Path) -> None:
    engine = {"name": "ray", "resources": {"custom": {"tpu": 1}}, "wait_s": 1}
    with pytest.raises(ClusterError) as caught:
        api.run(job_from_dict(job(folder, "no", engine=engine), folder))
    (problem,) = caught.value.problems
    assert problem.title == "no node has the tpu that a worker takes"
    assert problem.facts["wanted"] == "CPU 1, tpu 1"
    assert problem.facts["cluster"].startswith("CPU 3")


def test_nobody_at_the_address_is_said_at_once(folder: Path) -> None:
    engine = {"name": "ray", "address": "127.0.0.1:9"}
    with pytest.raises(ClusterError) as caught:
        api.run(job_from_dict(job(folder, "no", engine=engine), folder))
    assert caught.value.problems[0].title == "no Ray cluster at the address"


def test_actors_are_there_before_the_plan_and_end_without_one(three_raylets: Any) -> None:
    import ray

    with Beginning(Engine(name="ray", workers=2)) as beginning:
        until(lambda: beginning.here_at is not None)
        ahead = beginning.hiring().ahead
        assert len(ahead) == 2
        pid = ray.get(ahead[0].call).pid
        assert Path(f"/proc/{pid}").exists()
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_job_with_a_mistake_is_told_whether_there_is_a_cluster_or_not(folder: Path) -> None:
    engine = {"name": "ray", "address": "127.0.0.1:9"}
    features = {"x": {"columns": ["nothing_of_that_name"]}}
    with pytest.raises(ContractError):
        api.run(job_from_dict(job(folder, "no", engine=engine, features=features), folder))
