"""The stores and the faults do what tests of S3 rely on."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.chaos.pollreader import PollReader
from tests.stores.badstore import BadStore
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.killer import Killer
from tests.stores.s3server import S3Server

ABSENT = {"If-None-Match": "*"}


def key_in(folder: str, name: str = "key") -> str:
    """The path of an object of this folder, as raw requests take it."""
    url = urlsplit(folder)
    return f"/{url.netloc}{url.path}/{name}"


def test_who_puts_second_if_absent_is_refused(s3: S3Server, s3_folder: str) -> None:
    key = key_in(s3_folder)
    assert s3.request("PUT", key, b"first", ABSENT).status == 200
    assert s3.request("PUT", key, b"second", ABSENT).status == 412
    assert s3.request("GET", key).body == b"first"


def test_who_puts_over_another_version_is_refused(s3: S3Server, s3_folder: str) -> None:
    key = key_in(s3_folder)
    seen = s3.request("PUT", key, b"1").headers["etag"]
    assert s3.request("PUT", key, b"2", {"If-Match": seen}).status == 200
    assert s3.request("PUT", key, b"3", {"If-Match": seen}).status == 412
    assert s3.request("GET", key).body == b"2"


def test_what_was_acknowledged_outlives_kill_9(s3: S3Server, s3_folder: str) -> None:
    key, data = key_in(s3_folder), os.urandom(1 << 20)
    assert s3.request("PUT", key, data).status == 200
    s3.kill9()
    with pytest.raises(ConnectionRefusedError):
        s3.request("GET", key)
    s3.restart()
    assert s3.request("GET", key).body == data
    assert s3.request("PUT", key, b"again", ABSENT).status == 412


def test_a_paused_store_hangs(s3: S3Server, s3_folder: str) -> None:
    s3.pause()
    with pytest.raises(TimeoutError):
        s3.request("GET", key_in(s3_folder), timeout_s=0.1)


def test_a_bucket_that_is_missing_is_not_made(s3: S3Server) -> None:
    assert s3.request("PUT", "/missing/key", b"").status == 404


def test_a_reader_may_not_write(s3: S3Server, s3_folder: str) -> None:
    key = key_in(s3_folder)
    s3.request("PUT", key, b"mine")
    assert s3.reader.request("GET", key).body == b"mine"
    assert s3.reader.request("PUT", key, b"theirs").status == 403


def test_a_rule_refuses_the_requests_that_it_names(s3: S3Server, proxy: FaultProxy, s3_folder: str) -> None:
    access, key = s3.access.via(proxy.url), key_in(s3_folder)
    with proxy.fault("error", op="PutObject", nth=(1, 3)) as rule:
        assert [access.request("PUT", key, b"").status for _ in range(4)] == [503, 200, 503, 200]
        assert access.request("GET", key).status == 200
    assert (rule.seen, rule.fired) == (4, 2)
    assert proxy.counts()["ops"] == {"PutObject": 4, "GetObject": 1}


def test_a_lost_answer_is_of_a_write_that_counts(s3: S3Server, proxy: FaultProxy, s3_folder: str) -> None:
    access, key = s3.access.via(proxy.url), key_in(s3_folder)
    with proxy.fault("lost", op="PutObject", nth=1), pytest.raises(ConnectionError):
        access.request("PUT", key, b"mine", ABSENT)
    assert access.request("PUT", key, b"mine", ABSENT).status == 412
    assert s3.request("GET", key).body == b"mine"


def test_the_bad_store_lets_everyone_win(bad_store: BadStore) -> None:
    tries = [bad_store.request("PUT", "/lake/key", b"mine", ABSENT) for _ in range(2)]
    assert [one.status for one in tries] == [200, 200]
    assert bad_store.request("PUT", "/lake/key", b"mine", {"If-Match": '"another"'}).status == 200


def test_tls_is_trusted_with_its_ca_only(
    s3_tls: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3_tls.endpoint.startswith("https://")
    assert s3_tls.request("PUT", "/lake/key", b"secret").status == 200
    use_store(s3_tls)
    assert boto3.client("s3").get_object(Bucket="lake", Key="key")["Body"].read() == b"secret"
    arrow = pyarrow.fs.S3FileSystem(**s3_tls.access.pyarrow())
    assert arrow.open_input_file("lake/key").read() == b"secret"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(botocore.exceptions.SSLError):
        boto3.client("s3").list_buckets()
    with pytest.raises(ssl.SSLCertVerificationError):
        type(s3_tls.access)(s3_tls.endpoint, s3_tls.key, s3_tls.secret).request("GET", "/lake")


def test_each_client_obeys_the_environment(
    s3: S3Server, bad_store: BadStore, s3_folder: str, use_store: UseStore
) -> None:
    use_store(bad_store)
    assert boto3.client("s3").meta.endpoint_url == bad_store.endpoint
    use_store(s3)
    bucket, _, prefix = s3_folder.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/key", Body=b"mine")
    assert fsspec.open(f"{s3_folder}/key").open().read() == b"mine"
    files, path = pyarrow.fs.FileSystem.from_uri(f"{s3_folder}/key")
    assert files.open_input_file(path).read() == b"mine"
    child = "import boto3, sys; boto3.client('s3').head_object(Bucket=sys.argv[1], Key=sys.argv[2])"
    subprocess.run([sys.executable, "-c", child, bucket, f"{prefix}/key"], check=True)


def test_readers_of_a_folder_in_the_store_see_its_rows(
    s3: S3Server, s3_folder: str, use_store: UseStore
) -> None:
    use_store(s3)
    files, path = pyarrow.fs.FileSystem.from_uri(f"{s3_folder}/out/part.parquet")
    pq.write_table(pa.table({"x": range(7)}), path, filesystem=files)
    s3.request("PUT", key_in(s3_folder, "out/_SUCCESS"))
    with PollReader(f"{s3_folder}/out") as watch:
        pass
    watch.report.assert_only({7})


def test_a_command_is_killed_until_it_may_end(tmp_path: Path) -> None:
    """Each try makes one file and waits for a death, until there are three."""
    script = (
        "import os, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[1]); made = len(list(folder.iterdir()))\n"
        "made == 2 and sys.exit(0)\n"
        "(folder / str(made)).touch(); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    report = Killer(command, on_glob=f"{tmp_path}/*", kills=2, timeout_s=30).run()
    assert (report.exit_codes, report.kills) == ([-9, -9, 0], 2)
