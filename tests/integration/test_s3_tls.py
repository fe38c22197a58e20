"""A result in a bucket over TLS, by an authority of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchonnx
from batchonnx.errors import StorageError
from tests.chaos.bucket import contents, make_input, make_job, require_result
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_input(tmp_path)
    return tmp_path


def test_a_result_over_tls_is_the_same(
    s3_tls: S3Server, use_store: UseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(s3_tls)
    output = "s3://lake/over-tls/out"
    batchonnx.run(make_job(folder, str(folder / "out")))
    batchonnx.run(make_job(folder, output))
    batchonnx.verify(output, deep=True)
    require_result(output, contents(str(folder / "out")))
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(StorageError, match="certificate isn't trusted"):
        batchonnx.run(make_job(folder, "s3://lake/over-tls/other"))
