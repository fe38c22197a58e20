"""A result in a bucket over TLS, by an authority of one's own; and credentials that a process prints anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import batchonnx
from batchonnx.errors import StorageError
from batchonnx.ledger.object_folder import ObjectFolder
from tests.chaos.bucket import contents, make_input, make_job, require_result
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

PRINTS = """
import datetime, json, pathlib, sys
calls = pathlib.Path(sys.argv[1])
count = len(calls.read_text()) if calls.exists() else 0
calls.write_text("x" * (count + 1))
keys = json.loads(pathlib.Path(sys.argv[2]).read_text())
until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=int(keys.pop("for")))
print(json.dumps({"Version": 1, **keys, "Expiration": until.isoformat()}))
"""


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


def test_credentials_of_a_process_are_asked_for_again_when_they_are_about_to_expire(
    s3: S3Server, s3_folder: str, use_store: UseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one run: each answer is good for less time than botocore wants to have in hand."""
    use_store(s3)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    script, calls, keys = folder / "prints.py", folder / "calls", folder / "keys.json"
    script.write_text(PRINTS)
    config = folder / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script} {calls} {keys}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    output = f"{s3_folder}/out"

    def hand_out(access: S3Server | object, seconds: int) -> None:
        named = {"AccessKeyId": access.key, "SecretAccessKey": access.secret, "for": seconds}  # type: ignore[attr-defined]
        keys.write_text(json.dumps(named))

    hand_out(s3, 300)
    batchonnx.run(make_job(folder, output))
    asked = len(calls.read_text())
    assert asked > 3
    hand_out(s3.next_access, 300)
    batchonnx.run(make_job(folder, output), fresh=True)
    assert len(calls.read_text()) > asked
    assert list(ObjectFolder(output).uploads()) == []
    batchonnx.verify(output)
