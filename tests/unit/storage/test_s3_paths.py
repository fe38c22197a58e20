"""What is found at s3:// paths, with how many requests, and what is said of those that lead nowhere."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from batchonnx.errors import BatchonnxError, InputError, ModelFileError
from batchonnx.storage import paths
from batchonnx.storage.paths import list_files, local_copy, open_input
from batchonnx.storage.s3 import S3, s3_client, split_url
from batchonnx.storage.s3_requests import Requests, requests_sent, retries_made
from batchonnx.storage.settings import StorageSettings, use_settings
from tests.stores.faultproxy import FaultProxy, Rule
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server


@pytest.fixture(scope="module")
def put_names(s3: S3Server) -> str:
    """A folder whose names S3 allows and others don't."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.access.env().items():
            patch.setenv(name, value)
        for name in NAMES:
            s3_client().put("lake", f"names/{name}", name.encode())
    return "s3://lake/names"


@pytest.fixture
def lake(put_names: str, s3: S3Server, proxy: FaultProxy, use_store: UseStore) -> str:
    """That folder; requests are counted."""
    use_store(s3.access.via(proxy.url))
    return put_names


NAMES = (
    "day=1/part-10.parquet",
    "day=1/part-2.parquet",
    "day=1/_tmp.parquet",
    "day=1/.x/part-0.parquet",
    "day=10/part-0.parquet",
    "day=1-old/part-0.parquet",
    "odd/a b+c.parquet",
    "odd//twice.parquet",
    "odd/é ü 名.parquet",
    "odd/100%25.parquet",
    "odd/q?a=1#x.parquet",
    "odd/a[1].parquet",
    "marked/",
    "marked/x.parquet",
)


def found(lake: str, *patterns: str) -> list[str]:
    return [entry.path.removeprefix(f"{lake}/") for entry in list_files([f"{lake}/{p}" for p in patterns])]


@pytest.mark.parametrize(
    ("pattern", "names", "requests"),
    [
        ("day=1", ["day=1/part-2.parquet", "day=1/part-10.parquet"], 1),
        ("day=1/", ["day=1/part-2.parquet", "day=1/part-10.parquet"], 1),
        ("day=1/part-2.parquet", ["day=1/part-2.parquet"], 2),
        ("day=1/_tmp.parquet", ["day=1/_tmp.parquet"], 2),
        (
            "day=*/part-?.parquet",
            ["day=1/part-2.parquet", "day=1-old/part-0.parquet", "day=10/part-0.parquet"],
            1,
        ),
        ("**/part-1*", ["day=1/part-10.parquet"], 1),
        ("odd/a b+c.parquet", ["odd/a b+c.parquet"], 2),
        ("odd//twice.parquet", ["odd//twice.parquet"], 2),
        ("odd/é*", ["odd/é ü 名.parquet"], 1),
        ("odd/100%25.parquet", ["odd/100%25.parquet"], 2),
        ("odd/q?a=1#x.parquet", ["odd/q?a=1#x.parquet"], 1),
        ("odd/a[1].parquet", ["odd/a[1].parquet"], 1),
        ("marked", ["marked/x.parquet"], 1),
    ],
)
def test_names_are_taken_as_they_are(
    lake: str, proxy: FaultProxy, pattern: str, names: list[str], requests: int
) -> None:
    before = proxy.counts()["ops"].total()
    assert found(lake, pattern) == sorted(names, key=paths._natural)
    assert proxy.counts()["ops"].total() - before == requests


def test_an_objects_version_is_its_etag_and_its_bytes_are_its_own(lake: str) -> None:
    for name in NAMES[6:12]:
        (entry,) = list_files([f"{lake}/{name}"])
        assert (entry.version, entry.size) == (
            s3_client().head(*split_url(entry.path)).etag,
            len(name.encode()),
        )
        with open_input(entry) as by_entry, open_input(entry.path) as by_name:
            assert by_entry.read() == by_name.read() == name.encode()
        assert local_copy(entry.path, ModelFileError, "the model").read_bytes() == name.encode()


@pytest.mark.parametrize(
    ("pattern", "title"),
    [
        ("day=2", "the input isn't there"),
        ("day=1/part-3.parquet", "the input isn't there"),
        ("day=1/*.csv", "no file matches the input's path"),
        ("day=1/.x/", "the input isn't there"),
    ],
)
def test_what_isnt_there_is_named(lake: str, pattern: str, title: str) -> None:
    if pattern == "day=1/.x/":
        pattern, title = "hidden", "the input folder has no files"
        s3_client().put(*split_url(f"{lake}/hidden/_SUCCESS"), b"")
    with pytest.raises(InputError) as caught:
        found(lake, pattern)
    assert caught.value.problems[0].title == title
    assert caught.value.problems[0].facts["path"] == f"{lake}/{pattern}"


def test_a_model_is_copied_in_pieces_of_one_version(lake: str, proxy: FaultProxy) -> None:
    data = os.urandom(40 << 20)
    url = f"{lake}/model.onnx"
    s3_client().put(*split_url(url), data)
    before = proxy.counts()["ops"]
    assert local_copy(url, ModelFileError, "the model").read_bytes() == data
    assert proxy.counts()["ops"] - before == {"GetObject": 3}
    with pytest.raises(ModelFileError, match="the model isn't there"):
        local_copy(f"{lake}/nodel.onnx", ModelFileError, "the model")


def test_an_empty_object_is_an_empty_file(lake: str) -> None:
    s3_client().put(*split_url(f"{lake}/empty"), b"")
    with open_input(f"{lake}/empty") as file:
        assert file.read() == b""
    assert local_copy(f"{lake}/empty", ModelFileError, "the model").read_bytes() == b""


TROUBLE = {
    "no such bucket": ("the bucket isn't there", "correct the bucket's name, or make it"),
    "no credentials": ("there are no credentials for the store", "AWS_ACCESS_KEY_ID"),
    "unknown key": ("the access key isn't known to the store", "check the credentials"),
    "wrong secret": ("the secret key is wrong", "check the credentials"),
    "expired": ("the credentials have expired", "renew them"),
    "wrong endpoint": ("the store can't be reached", "check storage.endpoint or AWS_ENDPOINT_URL"),
    "no such profile": ("the S3 service can't be set up", "storage:"),
    "http to a TLS port": ("", "http or https, host and port"),
    "untrusted CA": ("the store's certificate isn't trusted", "storage.ca_file"),
    "https to a plain port": ("the store's certificate isn't trusted, or it speaks no TLS", "http or https"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("what", ["input", "model"])
def test_trouble_with_a_store_is_told_once_and_soon(
    trouble: str,
    what: str,
    s3: S3Server,
    s3_tls: S3Server,
    proxy: FaultProxy,
    use_store: UseStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(s3_tls if "TLS" in trouble or "CA" in trouble else s3)
    bucket = "lake"
    if trouble == "no such bucket":
        bucket = "missing-bucket"
    elif trouble == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elif trouble == "unknown key":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    elif trouble == "wrong secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    elif trouble == "expired":
        use_store(s3.access.via(proxy.url))
        proxy.add(Rule("expired"))
    elif trouble == "wrong endpoint":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    elif trouble == "no such profile":
        monkeypatch.setenv("AWS_PROFILE", "missing")
    elif trouble == "http to a TLS port":
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_tls.endpoint.replace("https", "http"))
    elif trouble == "untrusted CA":
        monkeypatch.delenv("AWS_CA_BUNDLE")
    elif trouble == "https to a plain port":
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint.replace("http", "https"))
    url = f"s3://{bucket}/there/x.onnx"
    with pytest.raises(BatchonnxError) as caught:
        if what == "input":
            list_files([url])
        else:
            local_copy(url, ModelFileError, "the model")
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 3
    title, fix = TROUBLE[trouble]
    assert problem.title.startswith(title)
    assert fix in problem.fix
    assert s3.access.secret not in str(caught.value)


def test_settings_are_enough_without_a_word_in_the_environment(
    s3_tls: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_store(s3_tls)
    s3_client().put("lake", "settings/x", b"x")
    for name in ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    settings = StorageSettings(
        s3_tls.endpoint, "us-east-1", path_style=True, ca_file=str(s3_tls.access.ca_file)
    )
    use_settings(settings)
    try:
        assert [entry.size for entry in list_files(["s3://lake/settings"])] == [1]
    finally:
        use_settings(StorageSettings())


def test_what_a_client_has_sent_counts_when_it_is_gone_as_well(lake: str, proxy: FaultProxy) -> None:
    sent, again = requests_sent()["HeadObject"], retries_made()
    with proxy.fault("error", op="HeadObject", nth=1):
        assert S3(Requests(StorageSettings())).head("lake", "nothing") is None
    gc.collect()
    assert (requests_sent()["HeadObject"] - sent, retries_made() - again) == (2, 1)
