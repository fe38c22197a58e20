"""`chaos` on each job of jobs/, on both engines: every promise that can be tried there holds."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from batchonnx.engines.ray.reaper import MARK
from tests.integration.conftest import JOBS, Script, fetched
from tests.integration.ray_cluster import own_ray
from tests.integration.test_rehearsals import broken, chaos, names, statuses
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

pytestmark = pytest.mark.timeout(300)

ALWAYS = ["every row once", "all or nothing", "resume", "one writer", "the same bytes", "a clean end"]


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "ray":
            patch = stack.enter_context(own_ray())
            patch.delenv("RAY_ADDRESS", raising=False)
            patch.delenv(MARK)  # each run marks its own Ray
        yield request.param


def require_green(engine: str, job: Path, *options: str, more: tuple[str, ...] = ()) -> None:
    """more: promises that are tried of this job besides those of all."""
    before = names(job.parent)
    code, drill = chaos(job, "--engine", engine, *options)
    print(f"{drill['job']} on {engine}: {drill['runs_s']:.0f} s")
    assert code == 0, broken(drill)
    tried = {promise for promise, status in statuses(drill).items() if status == "held"}
    assert tried == {*ALWAYS, *more, *(["workers may die"] if engine == "ray" else [])}, drill["verdicts"]
    assert names(job.parent) == before


@pytest.mark.slow
def test_digits(engine: str, jobs: Path) -> None:
    require_green(engine, jobs / "score.yaml")


@pytest.mark.slow
def test_file_types(engine: str, magika_jobs: Path) -> None:
    files = Path(sysconfig.get_path("stdlib")) / "asyncio"
    require_green(engine, magika_jobs / "filetypes.yaml", "--set", f"dir={files}")


@pytest.mark.slow
def test_flights(engine: str, flights_jobs: Path) -> None:
    require_green(engine, flights_jobs / "flights.yaml")


@pytest.mark.slow
def test_digits_of_a_day_from_bucket_to_bucket(
    engine: str, tmp_path: Path, s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    import boto3

    use_store(s3)
    bucket, _, prefix = s3_folder.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    client.upload_file(str(JOBS / "models/digits.onnx"), bucket, f"{prefix}/models/digits/digits.onnx")
    lake = f"{prefix}/lake/digits/day=2026-11-22/digits.parquet"
    client.upload_file(str(JOBS / "data/digits.parquet"), bucket, lake)
    job = tmp_path / "daily.yaml"
    job.write_text((JOBS / "daily.yaml").read_text().replace("s3://", f"{s3_folder}/"))
    require_green(engine, job, "--date", "2026-11-22", more=("requests may fail",))


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["images", "speech", "glosses"])
def test_what_torch_has_exported(engine: str, name: str, jobs: Path, script: Script) -> None:
    """Of what speech comes out of no framework; its package asks for one."""
    folder = fetched(jobs, script, f"get_{name}.py")
    require_green(engine, folder / {"glosses": "embed.yaml"}.get(name, f"{name}.yaml"))
