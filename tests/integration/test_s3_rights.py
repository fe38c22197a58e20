"""A run needs the rights of docs/storage.md, no more; one that is missing is named before a row is scored."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import InputError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger import object_lease
from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import (
    FILE_ROWS,
    FILES,
    contents,
    job_spec,
    make_input,
    put_input,
    require_result,
    require_tidy,
)
from tests.chaos.dying_s3 import Life
from tests.stores.fixtures import BUCKETS, UseStore
from tests.stores.s3server import S3Server

ROOT = Path(__file__).parents[2]
SOURCE = "s3://lake/rights"


def documented() -> dict[str, Any]:
    """The policy of docs/storage.md."""
    (text,) = re.findall(
        r"^```json\n(.*?)^```", (ROOT / "docs/storage.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return dict(json.loads(text))


def without(action: str, bucket: str) -> dict[str, Any]:
    """That policy, and one right of a bucket denied: some stores think that one right implies another."""
    policy = copy.deepcopy(documented())
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    policy["Statement"].append({"Effect": "Deny", "Action": [action], "Resource": resources})
    return policy


OF_OUTPUT = {
    "s3:ListBucket": "ListObjectsV2",
    "s3:ListBucketMultipartUploads": "ListMultipartUploads",
    "s3:GetObject": "GetObject",
    "s3:PutObject": "PutObject",
    "s3:DeleteObject": "DeleteObjects",
    "s3:AbortMultipartUpload": "AbortMultipartUpload",
}
OF_INPUT = {"s3:ListBucket": "ListObjectsV2", "s3:GetObject": "GetObject"}
MISSING = [("scores", action) for action in OF_OUTPUT] + [("lake", action) for action in OF_INPUT]


@pytest.fixture(scope="module")
def s3_rights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store over TLS with users `documented` and, one for each missing right, `BUCKET ACTION`."""
    policies = {f"{bucket} {action}": without(action, bucket) for bucket, action in MISSING}
    policies["documented"] = documented()
    folder = tmp_path_factory.mktemp("s3-rights")
    with S3Server(folder, buckets=BUCKETS, tls=True, policies=policies) as server:
        yield server
        server.kill9()


@pytest.fixture
def folder(s3_rights: S3Server, use_store: UseStore, tmp_path: Path) -> Path:
    """Model and input, here and in the store."""
    make_input(tmp_path)
    use_store(s3_rights)
    put_input(tmp_path, SOURCE)
    return tmp_path


def make_job(folder: Path, output: str, name: str = "model.onnx", **changed: Any) -> JobFile:
    """From the store."""
    return job_from_dict(job_spec(output, name, SOURCE) | changed, folder)


def before_footer(path: Path) -> bytes:
    """All of a Parquet file but what tells of it: there, each run names its own input."""
    data = path.read_bytes()
    return data[: -8 - int.from_bytes(data[-8:-4], "little")]


def test_from_store_to_store_with_no_more_rights_than_documented(
    s3_rights: S3Server, use_store: UseStore, folder: Path
) -> None:
    output = "s3://scores/events/day=1"
    local = job_from_dict(job_spec("local"), folder)
    batchonnx.run(local)
    batchonnx.run(make_job(folder, "out"))
    batchonnx.run(make_job(folder, "out-other", "other.onnx"))
    from_there, from_here = sorted(folder.glob("out/*.parquet")), sorted(folder.glob("local/*.parquet"))
    assert list(map(before_footer, from_there)) == list(map(before_footer, from_here))
    use_store(s3_rights.user("documented"))
    assert batchonnx.run(make_job(folder, output)).predicted == FILES * FILE_ROWS
    require_result(output, contents(str(folder / "out")))
    assert batchonnx.verify(output, deep=True).rescored
    assert not batchonnx.run(make_job(folder, output)).is_new
    batchonnx.run(make_job(folder, output, "other.onnx"))
    require_result(output, contents(str(folder / "out-other")))
    assert batchonnx.clean(output) == []
    rows = batchonnx.dataset(output).to_table().sort_by("id")
    assert rows.equals(pq.read_table(folder / "out-other").sort_by("id"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_died_goes_on_with_these_rights(
    s3_rights: S3Server, use_store: UseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while it scored, once while it published."""
    monkeypatch.setattr(object_lease, "is_dead", lambda record: True)
    batchonnx.run(make_job(folder, "out"))
    use_store(s3_rights.user("documented"))
    with Life().lived() as whole:
        batchonnx.run(make_job(folder, "s3://scores/events/whole"))
    operations = [operation for operation, _ in whole.asked]
    for operation in ("upload_part", "complete_multipart_upload"):
        output = f"s3://scores/events/{operation}"
        with Life(operations.index(operation) + 3).lived() as life:
            batchonnx.run(make_job(folder, output))
        assert life.is_over
        batchonnx.run(make_job(folder, output))
        require_result(output, contents(str(folder / "out")))


@pytest.mark.parametrize(("bucket", "action"), MISSING)
def test_a_right_that_is_missing_is_named_before_a_row_is_scored(
    s3_rights: S3Server, use_store: UseStore, folder: Path, bucket: str, action: str
) -> None:
    """Rows go through a hook that would leave a trace."""
    (folder / "traced.py").write_text(
        "import numpy as np, pathlib\n"
        "def encode(rows):\n"
        f"    pathlib.Path({str(folder / 'trace')!r}).touch()\n"
        "    return np.column_stack([rows.column(f'f{i}').to_numpy() for i in range(3)])\n"
    )
    features = {"x": {"columns": ["f0", "f1", "f2"], "python": "traced:encode"}}
    output = "s3://scores/events/refused"
    use_store(s3_rights.user(f"{bucket} {action}"))
    changed = {"features": features, "model": {"path": "model.onnx"}}
    with pytest.raises(InputError if bucket == "lake" else StorageError) as caught:
        batchonnx.run(make_job(folder, output, **changed))
    (problem,) = caught.value.problems
    operations = OF_INPUT if bucket == "lake" else OF_OUTPUT
    assert problem.title in ("the store denies access", "an object can't be removed")
    assert problem.facts["path"].startswith(SOURCE if bucket == "lake" else output)
    assert problem.facts["operation"] == operations[action]
    assert action in problem.facts["expected"]
    assert "AccessDenied" in problem.facts["found"]
    assert problem.fix == "ask for the right to do this, or use other credentials"
    assert not (folder / "trace").exists()
    use_store(s3_rights.user("documented"))
    batchonnx.run(make_job(folder, output, **changed))
    assert (folder / "trace").exists()
    use_store(s3_rights)
    batchonnx.clean(output)
    require_tidy(output)
    ObjectFolder(output).delete_below("")
