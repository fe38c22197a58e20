"""Results in stores that only fsspec knows: staged, and copied when they are published."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ContractError, OutputExistsError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.scoring.progress import Progress
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

FILES, ROWS = 3, 9_000
ROOT = Path(__file__).parents[2]
Made = Callable[..., JobFile]

JOB = """
model: {{path: model.onnx}}
input: {{path: in}}
features: {{x: {{columns: [f0, f1, f2]}}}}
keep: [id, country]
output: {{path: "{output}", single_writer: trusted, overwrite: true, partition_by: [country]}}
engine: {{batch_rows: 250, workers: 1}}
"""


@pytest.fixture(params=["local", "s3a"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of a disk, and one of a bucket, each as fsspec alone knows it."""
    if request.param == "local":
        return f"local://{tmp_path}/store/out"
    use: UseStore = request.getfixturevalue("use_store")
    store: S3Server = request.getfixturevalue("s3")
    use(store)
    return f"{request.getfixturevalue('s3_folder')}/out".replace("s3://", "s3a://")


@pytest.fixture
def job(tmp_path: Path, output: str) -> Made:
    """A job of three shards; given: keys of output; others: sections in place of its own."""
    make_input(tmp_path)

    def made(given: dict[str, Any] | None = None, **others: Any) -> JobFile:
        spec: dict[str, Any] = {
            "model": {"path": "model.onnx"},
            "input": {"path": "in"},
            "features": {"x": {"columns": ["f0", "f1", "f2"]}},
            "keep": ["id", "country"],
            "output": {"path": output, "single_writer": "trusted", **(given or {})},
            "engine": {"batch_rows": 250, "workers": 2},
        }
        return job_from_dict(spec | others, folder=tmp_path)

    return made


def make_input(folder: Path) -> None:
    """Three files, a shard each."""
    models.row_sum(folder / "model.onnx", 3)
    (folder / "in").mkdir()
    for number in range(FILES):
        rng = np.random.default_rng(number)
        columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(3)}
        ids = np.arange(number * ROWS, (number + 1) * ROWS)
        country = pa.array([("DE", "FR")[i % 2] for i in ids])
        pq.write_table(
            pa.table({"id": ids, "country": country, **columns}), folder / "in" / f"{number}.parquet"
        )


def parts_of(output: str) -> dict[str, bytes]:
    """Parts that a reader who lists the folder sees, with their bytes."""
    filesystem, root = fsspec.core.url_to_fs(output)
    filesystem.invalidate_cache()
    names = [name[len(root) + 1 :] for name in filesystem.find(root)]
    return {n: filesystem.cat_file(f"{root}/{n}") for n in names if not n.startswith(("_", "."))}


def require_tidy(output: str) -> None:
    """Nothing but the result, its records and the lease."""
    filesystem, root = fsspec.core.url_to_fs(output)
    filesystem.invalidate_cache()
    names = [name[len(root) + 1 :] for name in filesystem.find(root)]
    rest = {name for name in names if name.startswith("_")} - {"_SUCCESS", "_batchonnx/manifest.json"}
    rest -= {name for name in rest if name.startswith(("_batchonnx/order/", "_batchonnx/lease.json"))}
    (plan,) = rest
    assert plan.endswith("/plan.json")


@pytest.mark.parametrize(
    "given", [{}, {"partition_by": ["country"], "format": "csv"}], ids=["one", "folders"]
)
def test_a_result_is_that_of_a_disk_and_is_proved(
    given: dict[str, Any], job: Made, output: str, tmp_path: Path
) -> None:
    summary = batchonnx.run(job(given))
    batchonnx.run(job({**given, "path": str(tmp_path / "disk")}))
    here = {
        str(p.relative_to(tmp_path / "disk")): p.read_bytes() for p in (tmp_path / "disk").rglob("part-*")
    }
    here = {name: data for name, data in here.items() if not name.startswith("_")}
    assert parts_of(output) == here
    assert batchonnx.verify(output, deep=True, rows=500).parts == summary.parts
    assert batchonnx.dataset(output).to_table().sort_by("id").column("id").to_pylist() == [
        *range(FILES * ROWS)
    ]
    assert any("copied within the store" in note for note in summary.notes)
    require_tidy(output)
    assert not batchonnx.run(job(given)).is_new


def test_nothing_is_visible_before_it_is_published_and_a_stopped_run_goes_on(job: Made, output: str) -> None:
    def stop(progress: Progress) -> None:
        assert parts_of(output) == {}
        if progress.shards:
            raise KeyboardInterrupt

    one_worker = job(engine={"batch_rows": 250, "workers": 1})
    with pytest.raises(KeyboardInterrupt):
        batchonnx.run(one_worker, on_progress=stop)
    assert parts_of(output) == {}
    assert batchonnx.run(one_worker).resumed >= 1
    batchonnx.verify(output)
    require_tidy(output)


def test_a_former_result_is_replaced_and_only_if_that_is_asked_for(job: Made, output: str) -> None:
    batchonnx.run(job())
    former = parts_of(output)
    other = {"input": {"path": "in", "filter": "f0 > 0"}}
    with pytest.raises(OutputExistsError):
        batchonnx.run(job(**other))
    batchonnx.run(job({"overwrite": True}, **other))
    assert parts_of(output).keys().isdisjoint(former)
    batchonnx.verify(output)
    require_tidy(output)


def test_without_word_that_there_is_one_writer_it_is_refused_by_the_plan(job: Made, output: str) -> None:
    with pytest.raises(ContractError) as caught:
        batchonnx.plan(job({"single_writer": "proved"}))
    (problem,) = caught.value.problems
    assert "no conditional writes" in problem.title
    assert "output.single_writer: trusted" in problem.fix
    assert any("copied" in note for note in batchonnx.plan(job()).notes)


def test_clean_removes_what_a_stopped_run_has_left_and_no_run_needs(job: Made, output: str) -> None:
    batchonnx.run(job())
    filesystem, root = fsspec.core.url_to_fs(output)
    name = "part-000007-00000000.parquet"
    stray = f"{root}/_batchonnx/uploads/0123456789abcdef-" + f"{root}/{name}".replace("/", "%2F")
    filesystem.makedirs(f"{root}/_batchonnx/uploads", exist_ok=True)
    filesystem.pipe_file(stray, b"PAR1")
    assert [found.what for found in batchonnx.clean(output)] == ["an upload that no run needs"]
    require_tidy(output)


def test_a_staged_file_that_was_cut_is_not_published(job: Made, output: str) -> None:
    gate = {"total": {"max": 0.0}}
    with pytest.raises(Exception, match="the gate holds the result back"):
        batchonnx.run(job(gate=gate))
    filesystem, root = fsspec.core.url_to_fs(output)
    filesystem.invalidate_cache()
    staged = sorted(filesystem.find(f"{root}/_batchonnx/uploads"))
    assert len(staged) == FILES
    filesystem.pipe_file(staged[1], filesystem.cat_file(staged[1])[:-1])
    with pytest.raises(StorageError, match="isn't what was written"):
        batchonnx.publish(output, force=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["local://", ""])
def test_killed_at_steps_all_along_the_same_command_ends_in_the_same_result(
    scheme: str, tmp_path: Path
) -> None:
    """A result in folders by value, in a plain store and on a disk."""
    make_input(tmp_path)
    output = f"{scheme}{tmp_path}/store/out"
    (tmp_path / "store").mkdir()
    (tmp_path / "job.yaml").write_text(JOB.format(output=output))
    (tmp_path / "sound.yaml").write_text(JOB.format(output=f"{scheme}{tmp_path}/sound/out"))
    (tmp_path / "sound").mkdir()
    steps = int(run(tmp_path, 0, tmp_path / "sound", "sound.yaml").stdout.rpartition("steps ")[2])
    wanted = parts_of(f"local://{tmp_path}/sound/out")
    deaths = 0
    for step in range(1, steps, max(1, steps // 20)):
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").mkdir()
        died = run(tmp_path, step, tmp_path / "store", "job.yaml")
        deaths += died.returncode == -9
        seen = parts_of(output)
        has_mark = (tmp_path / "store" / "out" / "_SUCCESS").exists()
        assert not has_mark or seen == wanted  # whoever waits for it, sees all
        again = run(tmp_path, 0, tmp_path / "store", "job.yaml")
        assert again.returncode == 0, again.stderr
        assert parts_of(output) == wanted, step
        batchonnx.verify(output)
        if scheme:
            require_tidy(output)
        else:
            assert [path.name for path in (tmp_path / "store").iterdir()] == ["out"]
    assert deaths > 10


def run(folder: Path, step: int, watched: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, which dies before a step on the watched folder; 0: none."""
    job, *options = arguments
    command = [sys.executable, "-m", "tests.chaos.dying", str(step), str(watched), "run", str(folder / job)]
    return subprocess.run(
        [*command, *options, "--quiet"], capture_output=True, text=True, cwd=ROOT, check=False
    )
