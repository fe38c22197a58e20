"""Results in an S3 bucket: the same bytes, and the same promises, as on a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ChangedError, GateError, OutputExistsError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.upload import OpenUpload
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

FILES, FILE_ROWS = 4, 30_000
Made = Callable[..., JobFile]


@pytest.fixture
def output(s3: S3Server, s3_folder: str, use_store: UseStore) -> str:
    use_store(s3)
    return f"{s3_folder}/out"


@pytest.fixture
def job(tmp_path: Path, output: str) -> Made:
    """A job from local files into the store; changed: sections in place of its own."""
    models.row_sum(tmp_path / "model.onnx", 3)
    for number in range(FILES):
        write(tmp_path, number)

    def made(**changed: Any) -> JobFile:
        spec: dict[str, Any] = {
            "model": {"path": "model.onnx"},
            "input": {"path": "in"},
            "features": {"x": {"columns": ["f0", "f1", "f2"]}},
            "keep": ["id"],
            "output": {"path": output},
            "engine": {"batch_rows": 256, "workers": 2},
        }
        return job_from_dict(spec | changed, folder=tmp_path)

    return made


def write(folder: Path, number: int, rows: int = FILE_ROWS) -> None:
    """A file that is a shard of its own."""
    (folder / "in").mkdir(exist_ok=True)
    rng = np.random.default_rng(number)
    columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
    ids = np.arange(number * FILE_ROWS, number * FILE_ROWS + rows)
    pq.write_table(pa.table({"id": ids, **columns}), folder / "in" / f"{number}.parquet")


def contents(output: str) -> dict[str, str]:
    """Names of parts and quarantine, and their digests."""
    folder = ObjectFolder(output)
    names = [e.key for e in folder.list() if e.key.startswith(("part-", "_batchonnx/quarantine/"))]
    return {
        name: hashlib.sha256(data).hexdigest()
        for name, data in zip(names, folder.get_all(names), strict=True)
    }


def local_contents(output: Path) -> dict[str, str]:
    files = [*output.glob("*.parquet"), *output.glob("_batchonnx/quarantine/*")]
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def names(output: str) -> set[str]:
    return {entry.key for entry in ObjectFolder(output).list()}


def require_tidy(output: str) -> None:
    """Nothing but the result, its records and the lease."""
    folder = ObjectFolder(output)
    assert list(folder.uploads()) == []
    rest = {n for n in names(output) if not n.startswith(("part-", "_batchonnx/quarantine/"))}
    (plan,) = (n for n in rest if n.startswith("_batchonnx/runs/"))
    assert plan.endswith("/plan.json")
    assert rest - {plan} == {"_SUCCESS", "_batchonnx/manifest.json", "_batchonnx/lease.json"}


def test_the_bytes_are_those_of_a_local_run(job: Made, output: str, tmp_path: Path) -> None:
    summary = batchonnx.run(job())
    assert (summary.predicted, summary.parts) == (FILES * FILE_ROWS, FILES)
    batchonnx.run(job(output={"path": "out"}))
    assert contents(output) == local_contents(tmp_path / "out")
    proof = batchonnx.verify(output, deep=True)
    assert (proof.rows_in, proof.rescored) == (FILES * FILE_ROWS, proof.rescored)
    assert proof.rescored
    require_tidy(output)


def test_a_result_that_is_there_is_left_as_it_is(job: Made, output: str) -> None:
    batchonnx.run(job())
    assert not batchonnx.run(job()).is_new
    with pytest.raises(OutputExistsError):
        batchonnx.run(job(engine={"batch_rows": 100}))


def test_a_result_takes_the_place_of_a_former_one(job: Made, output: str) -> None:
    batchonnx.run(job())
    before = contents(output)
    batchonnx.run(job(engine={"batch_rows": 100}), overwrite=True)
    assert not contents(output).keys() & before.keys()
    batchonnx.verify(output)
    require_tidy(output)


def test_an_incremental_run_keeps_objects_as_they_are(job: Made, output: str, tmp_path: Path) -> None:
    batchonnx.run(job())
    before = contents(output)
    write(tmp_path, 9)
    (tmp_path / "in" / "1.parquet").unlink()
    summary = batchonnx.run(job(), incremental=True)
    assert (summary.kept, summary.parts) == (FILES - 1, FILES)
    assert len(contents(output).items() & before.items()) == FILES - 1
    assert batchonnx.verify(output, deep=True).rows_in == FILES * FILE_ROWS
    require_tidy(output)


def test_bad_rows_are_put_aside_and_explained(job: Made, output: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "2.parquet"
    table = pq.read_table(path)
    ids = pa.array([None if i == 77 else v for i, v in enumerate(table.column("id").to_pylist())], pa.int64())
    pq.write_table(table.set_column(0, "id", ids), path)
    (tmp_path / "careful.py").write_text(
        "import numpy as np\n"
        "def encode(rows):\n"
        "    if rows.column('id').null_count:\n"
        "        raise ValueError('no id')\n"
        "    return np.column_stack([rows.column(f'f{i}').to_numpy() for i in range(3)])\n"
    )
    features = {"x": {"columns": ["id", "f0", "f1", "f2"], "python": "careful:encode"}}
    summary = batchonnx.run(job(features=features, errors={"max_bad_rows": 1}))
    assert (summary.quarantined, summary.predicted) == (1, FILES * FILE_ROWS - 1)
    assert batchonnx.verify(output).quarantined == 1
    (found,) = batchonnx.explain(output, key=("id", str(2 * FILE_ROWS + 78)))
    assert (found.file, found.file_row) == (str(path), 78)
    require_tidy(output)


def test_the_gate_holds_a_result_back_and_publish_releases_it(job: Made, output: str) -> None:
    gate = {"total": {"max": -1000.0}}
    with pytest.raises(GateError):
        batchonnx.run(job(gate=gate))
    assert not [name for name in names(output) if name.startswith(("part-", "_SUCCESS"))]
    batchonnx.publish(output, force=True)
    assert batchonnx.verify(output).predicted == FILES * FILE_ROWS
    require_tidy(output)


def test_a_changed_job_is_refused_and_fresh_begins_again(job: Made, output: str) -> None:
    gate = {"total": {"max": -1000.0}}
    with pytest.raises(GateError):
        batchonnx.run(job(gate=gate))
    with pytest.raises(ChangedError) as caught:
        batchonnx.run(job(engine={"batch_rows": 100}))
    assert "engine.batch_rows" in caught.value.problems[0].facts
    batchonnx.run(job(engine={"batch_rows": 100}), fresh=True)
    assert batchonnx.verify(output).predicted == FILES * FILE_ROWS
    require_tidy(output)


def test_other_files_are_not_replaced(job: Made, output: str) -> None:
    ObjectFolder(output).put("precious.txt", b"mine")
    with pytest.raises(OutputExistsError):
        batchonnx.run(job(), overwrite=True)


def test_a_store_that_ignores_preconditions_is_refused(
    bad_store: S3Server, job: Made, use_store: UseStore
) -> None:
    use_store(bad_store)
    with pytest.raises(StorageError, match="ignores preconditions"):
        batchonnx.run(job(output={"path": "s3://lake/out"}))


def test_a_user_who_may_only_read_is_refused_before_any_row(
    s3: S3Server, job: Made, use_store: UseStore
) -> None:
    use_store(s3.reader)
    with pytest.raises(StorageError, match="denies access"):
        batchonnx.run(job())


def test_a_store_that_somebody_trusts_is_written_to(
    bad_store: S3Server, job: Made, use_store: UseStore
) -> None:
    use_store(bad_store)
    output = "s3://lake/trusted/out"
    summary = batchonnx.run(job(output={"path": output, "single_writer": "trusted"}))
    assert any("nothing keeps a second run away" in note for note in summary.notes)
    assert batchonnx.verify(output).predicted == FILES * FILE_ROWS


def test_the_manifest_s_dataset_is_exactly_the_published_parts(job: Made, output: str) -> None:
    batchonnx.run(job())
    ObjectFolder(output).put("part-000099-00000000.parquet", b"a stray that no reader should open")
    assert batchonnx.dataset(output).count_rows() == FILES * FILE_ROWS


def test_clean_removes_what_no_run_needs_and_nothing_else(job: Made, output: str) -> None:
    batchonnx.run(job())
    before = contents(output)
    folder = ObjectFolder(output)
    OpenUpload(folder, "part-000001-00000000.parquet")
    folder.put("_batchonnx/runs/0123456789abcdef/plan.json", b"{}")
    folder.put("part-000099-00000000.parquet", b"of a publication that was given up")
    cleared = batchonnx.clean(output)
    assert sorted(one.path.rpartition("/out/")[2] for one in cleared) == [
        "_batchonnx/runs/0123456789abcdef/",
        "part-000001-00000000.parquet",
        "part-000099-00000000.parquet",
    ]
    assert contents(output) == before
    require_tidy(output)
    assert batchonnx.clean(output) == []


def test_clean_leaves_a_run_that_can_go_on(job: Made, output: str) -> None:
    gate = {"total": {"max": -1000.0}}
    with pytest.raises(GateError):
        batchonnx.run(job(gate=gate))
    assert batchonnx.clean(output) == []
    assert batchonnx.publish(output, force=True).predicted == FILES * FILE_ROWS


def test_requests_are_counted_in_the_summary(job: Made, output: str) -> None:
    summary = batchonnx.run(job())
    assert summary.requests["CompleteMultipartUpload"] == FILES
    assert summary.requests["UploadPart"] == FILES
    assert summary.publish_s is not None
