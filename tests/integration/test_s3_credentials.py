"""Credentials that are handed out for a short time, and change in the middle of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchonnx
from batchonnx.errors import StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.storage.s3_requests import Requests
from batchonnx.storage.settings import StorageSettings, use_settings
from tests.chaos.bucket import FILE_ROWS, contents, job_spec, make_input, require_result
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.keymaster import Keymaster, answer_of
from tests.stores.s3server import ROLE, S3Server

FILES = 6
ARN = "arn:aws:iam::123456789012:role/scorer"
WAYS = ("process", "container", "web identity", "role")


@pytest.fixture
def folder(s3: S3Server, use_store: UseStore, tmp_path: Path) -> Iterator[Path]:
    use_store(s3)
    make_input(tmp_path, FILES)
    yield tmp_path
    use_settings(StorageSettings())


def run(folder: Path, output: str, **changed: Any) -> None:
    batchonnx.run(job_from_dict(job_spec(output) | changed, folder))


@pytest.fixture
def keys(s3: S3Server, folder: Path) -> Iterator[Keymaster]:
    with Keymaster(s3.add_key("next")) as master:
        yield master


def take_from(way: str, keys: Keymaster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the environment say where keys are handed out; what the job's `storage:` says of it."""
    if way == "role":  # the keys of the environment are those that may assume it
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", keys.url)
        return {"role_arn": ARN}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    match way:
        case "process":
            config = folder / "config"
            config.write_text(f"[default]\ncredential_process = cat {folder}/keys.json\n")
            monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        case "container":
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", keys.url)
        case "web identity":
            (folder / "token").write_text("a token of the cluster")
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", keys.url)
            monkeypatch.setenv("AWS_ROLE_ARN", ARN)
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    return {}


def hand_out(keys: Keymaster, folder: Path, access: Any) -> None:
    keys.access = access
    new = folder / "keys.json.new"
    new.write_text(json.dumps({"Version": 1, **answer_of(access)}))
    new.replace(folder / "keys.json")


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_is_changed_in_the_middle_of_a_run_costs_nothing(
    s3: S3Server, s3_folder: str, folder: Path, keys: Keymaster, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A new one is handed out while the second part is written; the old one ends before the fourth."""
    output = f"{s3_folder}/out"
    run(folder, str(folder / "out"))
    old = keys.access
    hand_out(keys, folder, old)
    storage = take_from(way, keys, folder, monkeypatch)
    call, sent = Requests.call, Counter[str]()

    def watched(client: Requests, operation: str, **arguments: Any) -> Any:
        sent[operation] += 1
        if operation == "upload_part" and sent[operation] == 2:
            hand_out(keys, folder, s3.add_key("next"))
        if operation == "upload_part" and sent[operation] == 4:
            s3.remove_key(old)
        return call(client, operation, **arguments)

    monkeypatch.setattr(Requests, "call", watched)
    run(folder, output, storage=storage)
    assert sent["upload_part"] == FILES
    assert way == "process" or keys.asked > FILES
    require_result(output, contents(str(folder / "out")), FILES * FILE_ROWS)


def test_a_key_that_ends_without_another_ends_the_run_and_the_next_finishes_it(
    s3: S3Server, s3_folder: str, folder: Path, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{s3_folder}/out"
    run(folder, str(folder / "out"))
    old = s3.add_key("next")
    use_store(old)
    call, sent = Requests.call, Counter[str]()

    def watched(client: Requests, operation: str, **arguments: Any) -> Any:
        sent[operation] += 1
        if operation == "upload_part" and sent[operation] == 4:
            s3.remove_key(old)
        return call(client, operation, **arguments)

    with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
        patch.setattr(Requests, "call", watched)
        run(folder, output)
    problem = caught.value.problems[0]
    assert problem.title == "the access key isn't known to the store"
    assert problem.facts["request id"]
    use_store(s3)
    again = batchonnx.run(job_from_dict(job_spec(output), folder))
    assert again.resumed
    require_result(output, contents(str(folder / "out")), FILES * FILE_ROWS)


def test_a_role_is_assumed_at_the_store_s_own_service(
    s3_roles: S3Server, use_store: UseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a user who may only read; counted on the way to it."""
    with FaultProxy(s3_roles.endpoint) as proxy:
        use_store(s3_roles.reader.via(proxy.url))
        output = "s3://lake/by-role/out"
        run(folder, str(folder / "out"))
        with pytest.raises(StorageError, match="the store denies access"):
            run(folder, output)
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        storage = {"endpoint": proxy.url, "role_arn": ROLE}
        before = proxy.counts()["ops"]
        run(folder, output, storage=storage)
        made = proxy.counts()["ops"] - before
        assert made["CompleteMultipartUpload"] == FILES
        require_result(output, contents(str(folder / "out")), FILES * FILE_ROWS)
        with pytest.raises(StorageError) as caught:
            run(folder, output, storage=storage | {"role_arn": ROLE + "-of-nobody"})
    problem = caught.value.problems[0]
    assert problem.facts["operation"] == "AssumeRole"
    assert problem.title == "the role can't be assumed"
