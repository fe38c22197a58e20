"""An unfinished run in a bucket, and what may have happened to it before it is gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchonnx
from batchonnx.errors import GateError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.upload import OpenUpload
from tests.chaos.bucket import FILE_ROWS, FILES, contents, job_spec, make_input, make_job, require_result
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

STOPS = {"total": {"max": -1000.0}}


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path) -> Path:
    use_store(s3)
    make_input(tmp_path)
    return tmp_path


def held_back(folder: Path, output: str) -> JobFile:
    """A job whose run is complete, and isn't published: the gate holds it back."""
    job = job_from_dict(job_spec(output) | {"gate": STOPS}, folder=folder)
    with pytest.raises(GateError):
        batchonnx.run(job)
    return job


def test_shards_whose_uploads_a_rule_of_the_bucket_has_ended_are_scored_again(
    folder: Path, s3_folder: str
) -> None:
    output = f"{s3_folder}/out"
    batchonnx.run(make_job(folder, str(folder / "out")))
    job = held_back(folder, output)
    there = ObjectFolder(output)
    there.abort(list(there.uploads())[:2])
    with pytest.raises(StorageError) as caught:
        batchonnx.publish(output, force=True)
    assert caught.value.problems[0].title == "an upload that was held open is gone"
    for _ in range(2):
        with pytest.raises(GateError):
            batchonnx.run(job)
        assert (
            len(list(there.uploads())) + len([e for e in there.list() if e.key.startswith("part-")]) == FILES
        )
    batchonnx.publish(output, force=True)
    require_result(output, contents(str(folder / "out")))


def test_what_others_upload_below_the_output_is_left_alone(folder: Path, s3_folder: str) -> None:
    output = f"{s3_folder}/out"
    ours = OpenUpload(ObjectFolder(output), "part-000007-00000000.parquet")
    others = [
        OpenUpload(ObjectFolder(output), "export.csv"),
        OpenUpload(ObjectFolder(f"{output}/below"), "part-000007-00000000.parquet"),
    ]
    batchonnx.run(make_job(folder, output))
    batchonnx.clean(output)
    left = {upload for _, upload in ObjectFolder(output).uploads()}
    assert left == {upload.id for upload in others}
    assert ours.id not in left
    for upload in others:
        upload.abort()


@pytest.mark.parametrize("text", ["{", '{"format": 99}'])
def test_a_manifest_that_cannot_be_read_is_no_obstacle_to_replacing_it(
    folder: Path, s3_folder: str, text: str
) -> None:
    output = f"{s3_folder}/out"
    batchonnx.run(make_job(folder, str(folder / "out")))
    batchonnx.run(make_job(folder, output, "other.onnx"))
    ObjectFolder(output).put("_batchonnx/manifest.json", text.encode())
    batchonnx.run(make_job(folder, output))
    batchonnx.clean(output)
    require_result(output, contents(str(folder / "out")), FILES * FILE_ROWS)
