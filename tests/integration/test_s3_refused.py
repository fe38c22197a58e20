"""A run whose output can't be reached, or is refused: one error with what to set, before a row is scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import batchonnx
from batchonnx.errors import StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.storage.settings import StorageSettings, use_settings
from tests.chaos.bucket import FILE_ROWS, FILES, contents, job_spec, make_input, make_job, require_result
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or storage.profile"
PLACE = "storage.endpoint or AWS_ENDPOINT_URL"
REFUSED = {
    "no such bucket": ("the bucket isn't there", "correct the bucket's name"),
    "no credentials": ("there are no credentials for the store", KEYS),
    "unknown key": ("the access key isn't known to the store", KEYS),
    "wrong secret": ("the secret key is wrong", KEYS),
    "read-only user": ("the store denies access", "ask for the right"),
    "expired token": ("the credentials have expired", "renew them; the same command then goes on"),
    "wrong region": ("the region is wrong", "set storage.region"),
    "another region": ("the bucket is in another region", "set storage.region"),
    "clock is off": ("this machine's clock is off", "set the clock"),
    "wrong endpoint": ("the store can't be reached", PLACE),
    "http to a TLS port": ("", PLACE),
    "https to a plain port": ("the store's certificate isn't trusted, or it speaks no TLS", PLACE),
    "untrusted CA": ("the store's certificate isn't trusted", "storage.ca_file or AWS_CA_BUNDLE"),
}
INJECTED = {
    "expired token": {"fault": "expired"},
    "wrong region": {"fault": "error", "status": 400, "code": "AuthorizationHeaderMalformed"},
    "another region": {"fault": "error", "status": 301, "code": "PermanentRedirect", "op": "Object"},
    "clock is off": {"fault": "error", "status": 403, "code": "RequestTimeTooSkewed"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Input here, whose rows go through a hook that would leave a trace."""
    make_input(tmp_path)
    (tmp_path / "leaves.py").write_text(
        "import numpy as np, pathlib\n"
        "def encode(rows):\n"
        f"    pathlib.Path({str(tmp_path / 'trace')!r}).touch()\n"
        "    return np.column_stack([rows.column(f'f{i}').to_numpy() for i in range(3)])\n"
    )
    yield tmp_path
    use_settings(StorageSettings())


@pytest.mark.parametrize("trouble", REFUSED)
def test_it_is_told_once_and_before_a_row_is_scored(
    trouble: str,
    s3: S3Server,
    s3_tls: S3Server,
    proxy: FaultProxy,
    use_store: UseStore,
    folder: Path,
    s3_folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(s3_tls if "TLS" in trouble or "CA" in trouble else s3)
    output = f"{s3_folder}/out"
    match trouble:
        case "no such bucket":
            output = "s3://missing-bucket/out"
        case "no credentials":
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
            monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        case "unknown key":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        case "wrong secret":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        case "read-only user":
            use_store(s3.reader)
        case "wrong endpoint":
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        case "http to a TLS port":
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3_tls.endpoint.replace("https", "http"))
        case "https to a plain port":
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint.replace("http", "https"))
        case "untrusted CA":
            monkeypatch.delenv("AWS_CA_BUNDLE")
        case _:
            use_store(s3.access.via(proxy.url))
    features = {"x": {"columns": ["f0", "f1", "f2"], "python": "leaves:encode"}}
    job = job_from_dict(job_spec(output) | {"features": features}, folder)
    if trouble in INJECTED:
        with proxy.fault(**INJECTED[trouble]), pytest.raises(StorageError) as caught:  # type: ignore[arg-type]
            batchonnx.run(job)
    else:
        with pytest.raises(StorageError) as caught:
            batchonnx.run(job)
    (problem,) = caught.value.problems
    title, fix = REFUSED[trouble]
    assert problem.title.startswith(title)
    assert fix in problem.fix
    assert problem.facts["path"].startswith(output)
    assert problem.facts["endpoint"].startswith("http")
    assert problem.facts["found"]
    assert not (folder / "trace").exists()


@pytest.mark.parametrize("name", ["a b", "é ü 名", "100%25", "q?a=1#x", "plus+&=", "[1]*"])
def test_an_output_s_key_is_taken_as_it_is(
    name: str, s3: S3Server, use_store: UseStore, folder: Path, s3_folder: str
) -> None:
    use_store(s3)
    output = f"{s3_folder}/{name}/out"
    batchonnx.run(make_job(folder, str(folder / "out")))
    batchonnx.run(make_job(folder, output))
    require_result(output, contents(str(folder / "out")))
    assert batchonnx.clean(output) == []
    assert batchonnx.dataset(output).count_rows() == FILES * FILE_ROWS
    assert not batchonnx.run(make_job(folder, output)).is_new


def test_a_store_that_does_not_list_names_with_two_slashes_is_refused(
    s3: S3Server, use_store: UseStore, folder: Path, s3_folder: str
) -> None:
    """It takes them for one: a run there would find nothing of what it wrote."""
    use_store(s3)
    with pytest.raises(StorageError, match="doesn't list what is there") as caught:
        batchonnx.run(make_job(folder, f"{s3_folder}/twice//named"))
    assert "without // in its path" in caught.value.problems[0].fix
    there = ObjectFolder(f"{s3_folder}/twice/named")
    assert {entry.key for entry in there.list()} == {"_batchonnx/lease.json"}
    assert list(there.uploads()) == []
