"""Jobs with real models on one raylet and on three: the bytes that this process writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchonnx import api
from batchonnx.job.load import job_from_dict
from batchonnx.ledger.object_folder import ObjectFolder
from tests.integration.ray_cluster import ray_cluster
from tests.integration.real_jobs import FRAMEWORK_JOBS, JOBS, Spec
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

pytestmark = pytest.mark.slow

Parts = dict[str, str]
"""Name of a file of a result -> its digest."""

Reference = Callable[[str], tuple[Path, Spec, Parts]]


@pytest.fixture(scope="module", params=[1, 3])
def raylets(s3: S3Server, request: pytest.FixtureRequest) -> Iterator[int]:
    """So many, with a CPU each; the store's credentials are in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.access.env().items():
            patch.setenv(name, value)
        with ray_cluster(request.param):
            yield request.param


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Reference:
    """A job's folder, the job, and what this process has made of it when it was first asked for."""
    fetched = pytestconfig.cache.mkdir("packages")
    found: dict[str, tuple[Path, Spec, Parts]] = {}

    def score(name: str) -> tuple[Path, Spec, Parts]:
        if name not in found:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            spec = (JOBS | FRAMEWORK_JOBS)[name](folder, fetched)
            found[name] = folder, spec, run(folder, spec, "local", str(folder / "out"))
        return found[name]

    return score


def run(folder: Path, spec: Spec, engine: str, output: str) -> Parts:
    """Score a job in place of what is there, and prove it.

    A size of batches that was measured is taken over: some of these models give other last digits in others.
    """
    told = spec | {"output": {**spec.get("output", {}), "path": output}}
    summary = api.run(job_from_dict(told, folder), engine=engine, fresh=True)  # type: ignore[arg-type]
    proof = api.verify(output)
    assert (summary.engine, summary.resumed, summary.lost) == (engine, 0, 0)
    assert (proof.predicted, proof.quarantined) == (summary.predicted, 0)
    assert proof.predicted > 0
    if output.startswith("s3://"):
        there = ObjectFolder(output)
        names = [entry.key for entry in there.list() if "part-" in entry.key]
        return {name: _digest(data) for name, data in zip(names, there.get_all(names), strict=True)}
    parts = Path(output).rglob("part-*")
    return {str(part.relative_to(output)): _digest(part.read_bytes()) for part in parts}


@pytest.mark.parametrize(
    "name", [*JOBS, *(pytest.param(name, marks=pytest.mark.frameworks) for name in FRAMEWORK_JOBS)]
)
def test_a_job_on_ray_writes_the_bytes_of_this_process(raylets: int, reference: Reference, name: str) -> None:
    folder, spec, expected = reference(name)
    assert run(folder, spec, "ray", str(folder / "out")) == expected


def test_a_job_from_bucket_to_bucket_on_ray_writes_the_bytes_of_this_process(
    raylets: int, reference: Reference, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    use_store(s3)
    folder, spec, _ = reference("digits")
    for file in ("data/digits.parquet", "models/digits.onnx"):
        ObjectFolder(s3_folder).put(file, (folder / file).read_bytes())
    moved = spec | {
        "model": {"path": f"{s3_folder}/models/digits.onnx"},
        "input": {"path": f"{s3_folder}/data/"},
    }
    expected = run(folder, moved, "local", f"{s3_folder}/out")
    assert expected
    assert run(folder, moved, "ray", f"{s3_folder}/out") == expected


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
