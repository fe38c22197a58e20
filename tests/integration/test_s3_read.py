"""Input and model in a real S3 service, output here: the local predictions, few requests, clear errors."""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.driver.run import open_job
from batchonnx.errors import GateError, InputError, JobFileError
from batchonnx.formats import parquet_footers
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger import object_run, objects
from batchonnx.scoring.read import read_chunks
from batchonnx.storage import fetchers, ranged, s3, s3_requests, spans
from batchonnx.storage.s3 import s3_client, split_url
from batchonnx.storage.settings import StorageSettings, use_settings
from tests import models
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS = 3000
Upload = Callable[[Path], str]


@pytest.fixture(autouse=True)
def no_settings_or_footers_are_left() -> Any:
    parquet_footers._kept.clear()
    yield
    use_settings(StorageSettings())


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy, use_store: UseStore) -> FaultProxy:
    """The store that s3:// means, behind a proxy."""
    use_store(s3.access.via(proxy.url))
    return proxy


@pytest.fixture
def upload(store: FaultProxy, s3_folder: str) -> Upload:
    """Copies a folder to the store; its URL."""

    def copy(folder: Path) -> str:
        bucket, prefix = split_url(f"{s3_folder}/{folder.name}")
        for path in folder.rglob("*"):
            if path.is_file():
                s3_client().put(bucket, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        return f"s3://{bucket}/{prefix}"

    return copy


def table(rows: int = ROWS, first: int = 0) -> pa.Table:
    rng = np.random.default_rng(first)
    columns = {name: rng.random(rows, dtype=np.float32) for name in "abc"}
    return pa.table({"id": np.arange(first, first + rows), **columns, "text": [f"t{i}" for i in range(rows)]})


def write(path: Path, data: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.name.partition(".")[2]:
        case "parquet":
            pq.write_table(data, path, row_group_size=700)
        case "feather":
            feather.write_feather(data, str(path), chunksize=700)
        case "arrows":
            with ipc.new_stream(str(path), data.schema) as writer:
                writer.write_table(data, max_chunksize=700)
        case "csv":
            pacsv.write_csv(data, path)
        case "csv.gz":
            with pa.CompressedOutputStream(str(path), "gzip") as packed:
                pacsv.write_csv(data, packed)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in data.to_pylist()))


def job(folder: Path, source: Any, output: str = "out", **settings: Any) -> JobFile:
    model = folder / "model.onnx"
    if not model.exists():
        models.linear(model, 3, 2)
    document = {
        "model": {"path": str(model)},
        "input": {"path": source},
        "features": {"x": {"columns": ["a", "b", "c"]}},
        "keep": ["id"],
        "output": {"path": output if "://" in output else str(folder / output)},
        **settings,
    }
    return job_from_dict(document, folder)


def scored(job_file: JobFile) -> pa.Table:
    api.run(job_file)
    return pq.ParquetDataset(job_file.job.output.path).read().sort_by("id")


@pytest.mark.parametrize("pieces", ["usual", "tiny"])
@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrows", "csv", "csv.gz", "jsonl"])
def test_each_format_gives_the_local_predictions(
    tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch, suffix: str, pieces: str
) -> None:
    if pieces == "tiny":
        small_pieces(monkeypatch)
    for n in range(3):
        write(tmp_path / "in" / f"{n}.{suffix}", table(ROWS, n * ROWS))
    local = scored(job(tmp_path, str(tmp_path / "in")))
    assert scored(job(tmp_path, upload(tmp_path / "in"), "out-s3")).equals(local)
    assert local.num_rows == 3 * ROWS


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if files were a thousand times as large."""
    for module in (spans, ranged):
        monkeypatch.setattr(module, "PIECE_BYTES", 8 << 10)
        monkeypatch.setattr(module, "SMALL_BYTES", 1 << 10)
    monkeypatch.setattr("batchonnx.formats.parquet.SMALL_BYTES", 1 << 10)
    monkeypatch.setattr("batchonnx.formats.arrow.SMALL_BYTES", 1 << 10)
    monkeypatch.setattr("batchonnx.formats.parquet_footers.TAIL_BYTES", 100)
    monkeypatch.setattr(spans, "GAP_BYTES", 100)
    monkeypatch.setattr(ranged, "LOOK_BYTES", 1 << 10)
    monkeypatch.setattr("batchonnx.formats.arrow.LOOK_BYTES", 1 << 10)


def test_wide_row_groups_are_read_side_by_side(
    tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    monkeypatch.setattr("batchonnx.formats.parquet.WHOLE_GROUP_BYTES", 4 << 10)
    monkeypatch.setattr(spans, "LEAST_BYTES", 1 << 10)
    pq.write_table(table(20_000), tmp_path / "0.parquet")
    (tmp_path / "in").mkdir()
    shutil.move(tmp_path / "0.parquet", tmp_path / "in")
    local = scored(job(tmp_path, str(tmp_path / "in")))
    assert scored(job(tmp_path, upload(tmp_path / "in"), "out-s3")).equals(local)


def test_partitions_filters_and_globs_mean_the_same(
    tmp_path: Path, upload: Upload, store: FaultProxy
) -> None:
    for n, country in enumerate(["DE", "FR", "DE%20x"]):
        for day in (1, 2, 10):
            path = tmp_path / "in" / f"day={day}" / f"country={country}" / f"p {n}.parquet"
            write(path, table(2000, 10_000 * day + 2000 * n))
    url = upload(tmp_path / "in")
    questions = [
        ("", "day >= 2 and id < 23000"),
        ("/day=1*/**/*.parquet", "country = 'DE x'"),
        ("", "a > 0.5"),
    ]
    for number, (pattern, condition) in enumerate(questions):
        found = []
        for place, root in (("here", str(tmp_path / "in")), ("s3", url)):
            source = {"path": f"{root}{pattern}", "filter": condition}
            found.append(scored(job(tmp_path, "", f"out-{number}-{place}", input=source)))
        assert found[0].equals(found[1])
        assert found[0].num_rows


def test_files_as_rows_come_from_the_store(tmp_path: Path, upload: Upload) -> None:
    (tmp_path / "in").mkdir()
    for n in range(20):
        (tmp_path / "in" / f"{n}.bin").write_bytes(bytes([n]) * (n * 1000))
    plan = open_job(files_job(tmp_path, upload(tmp_path / "in")))[0]
    rows = [
        row
        for shard in plan.shards
        for c in read_chunks(shard, plan.listing, ["size", "bytes"], None, 10, 10)
        for row in c.columns.to_pylist()
    ]
    assert [row["bytes"] for row in rows] == [bytes([n]) * (n * 1000) for n in range(20)]


def files_job(folder: Path, source: str) -> JobFile:
    models.linear(folder / "model.onnx", 2, 2)
    return job_from_dict(
        {
            "model": {"path": str(folder / "model.onnx")},
            "input": {"path": source, "format": "files"},
            "features": {"x": {"columns": ["size", "size"], "cast": True}},
            "output": {"path": str(folder / "out")},
        },
        folder,
    )


def test_small_files_cost_two_requests_each(tmp_path: Path, upload: Upload, store: FaultProxy) -> None:
    for n in range(150):
        write(tmp_path / "in" / f"{n:03}.parquet", table(250, 250 * n))
    url = upload(tmp_path / "in")
    (tmp_path / "model").mkdir()
    models.linear(tmp_path / "model" / "m.onnx", 3, 2)
    model = upload(tmp_path / "model")
    before = store.counts()["ops"]
    asked = job(tmp_path, "", input={"path": url, "filter": "a > 0.01"}, model={"path": f"{model}/m.onnx"})
    assert scored(asked).num_rows > 30_000
    made: Counter[str] = store.counts()["ops"] - before
    assert made.total() <= 2.1 * 150
    assert made["ListObjectsV2"] == 1
    again = store.counts()["ops"]
    open_job(asked)  # statistics for the filter; else, footers are known by their etags
    assert (store.counts()["ops"] - again)["GetObject"] <= 1


def test_the_first_rows_are_on_their_way_while_the_run_is_opened(
    tmp_path: Path, upload: Upload, store: FaultProxy, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.parquet", table(ROWS, 0))
    asked = job(tmp_path, upload(tmp_path / "in"), output=f"{s3_folder}/early")
    begin, fetched = object_run.begin, []

    def look(*arguments: Any) -> None:
        fetched.append(fetchers._fetchers.bytes)
        begin(*arguments)

    monkeypatch.setattr(objects, "begin", look)
    api.run(asked)
    assert fetched[0] > 0  # of the input, before the run has a name
    assert fetchers._fetchers.bytes == 0


def test_a_run_that_goes_on_fetches_nothing_of_what_is_committed(
    tmp_path: Path, upload: Upload, store: FaultProxy, s3_folder: str
) -> None:
    write(tmp_path / "in" / "a.parquet", table(ROWS, 0))
    asked = job(tmp_path, upload(tmp_path / "in"), output=f"{s3_folder}/early", gate={"id": {"max": -1.0}})
    for _ in range(2):
        with pytest.raises(GateError):
            api.run(asked)
        assert fetchers._fetchers.bytes == 0


def test_a_second_plan_reads_no_footer(tmp_path: Path, upload: Upload, store: FaultProxy) -> None:
    for n in range(10):
        write(tmp_path / "in" / f"{n}.parquet", table(100, 100 * n))
    asked = job(tmp_path, upload(tmp_path / "in"))
    first = open_job(asked)[0]
    parquet_footers._kept.clear()
    before = store.counts()["ops"]
    assert open_job(asked)[0].fingerprint == first.fingerprint
    assert store.counts()["ops"] - before == {"ListObjectsV2": 1}


def test_few_columns_of_many_cost_few_bytes(tmp_path: Path, upload: Upload, store: FaultProxy) -> None:
    rng = np.random.default_rng(0)
    names = [*"abc", *(f"n{i}" for i in range(60))]
    (tmp_path / "in").mkdir()
    wide = pa.table({"id": range(50_000), **{name: rng.random(50_000, dtype=np.float32) for name in names}})
    pq.write_table(wide, tmp_path / "in" / "w.parquet")
    url = upload(tmp_path / "in")
    before = store.counts()["bytes"]["down"]
    assert scored(job(tmp_path, url)).num_rows == 50_000
    size = (tmp_path / "in" / "w.parquet").stat().st_size
    assert store.counts()["bytes"]["down"] - before < size / 5


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changed_since_the_plan_is_named(
    tmp_path: Path, upload: Upload, suffix: str, change: str
) -> None:
    for n in range(3):
        write(tmp_path / "in" / f"{n}.{suffix}", table(ROWS, n))
    url = upload(tmp_path / "in")
    plan = open_job(job(tmp_path, url))[0]
    bucket, key = split_url(f"{url}/1.{suffix}")
    if change == "replaced":
        write(tmp_path / f"other.{suffix}", table(ROWS, 100))
        s3_client().put(bucket, key, (tmp_path / f"other.{suffix}").read_bytes())
    else:
        s3_client().delete(bucket, [key])
    with pytest.raises(InputError) as caught:
        for shard in plan.shards:
            for _ in read_chunks(shard, plan.listing, plan.columns, None, 1000, 1000):
                pass
    problem = caught.value.problems[0]
    assert f"s3://{bucket}/{key}" in problem.facts.values()
    wanted = (
        "the file has changed since the plan was made" if change == "replaced" else "the object isn't there"
    )
    assert problem.title == wanted
    assert problem.fix


FAULTS: list[dict[str, Any]] = [
    {"fault": "reset", "at": "response", "every": 5},
    {"fault": "reset", "at": "before", "every": 5},
    {"fault": "error", "every": 7},
    {"fault": "hang", "at": "response", "nth": (2, 9), "op": "GetObject"},
    {"fault": "hang", "at": "before", "nth": 4},
    {"fault": "error", "status": 500, "code": "InternalError", "every": 7},
]


@pytest.mark.parametrize(
    "rule", FAULTS, ids=lambda rule: f"{rule['fault']}-{rule.get('at', rule.get('status', 503))}"
)
def test_faults_of_the_store_change_nothing(
    tmp_path: Path, upload: Upload, store: FaultProxy, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any]
) -> None:
    monkeypatch.setattr(s3_requests, "ANSWER_S", 1)
    s3._client.cache_clear()
    for n in range(8):
        write(tmp_path / "in" / f"{n}.parquet", table(ROWS, n * ROWS))
    local = scored(job(tmp_path, str(tmp_path / "in")))
    url = upload(tmp_path / "in")
    with store.fault(**rule) as fault:
        assert scored(job(tmp_path, url, "out-s3")).equals(local)
    assert fault.fired


def test_a_store_that_hangs_for_ever_ends_the_run_with_an_error(
    tmp_path: Path, upload: Upload, store: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "0.parquet", table())
    asked = job(tmp_path, upload(tmp_path / "in"))
    monkeypatch.setattr(s3_requests, "ANSWER_S", 0.3)
    monkeypatch.setattr(s3_requests, "TRIES", 2)
    s3._client.cache_clear()
    with store.fault("hang", op="GetObject"), pytest.raises(InputError, match="can't be reached") as caught:
        api.run(asked)
    assert "0.parquet" in caught.value.problems[0].facts["path"]


def test_the_jobs_own_settings_reach_a_store_of_another_ca(
    tmp_path: Path, s3_tls: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(s3_tls)
    write(tmp_path / "in" / "0.parquet", table())
    s3_client().put("lake", "settings-of-a-job/0.parquet", (tmp_path / "in" / "0.parquet").read_bytes())
    for name in ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    shutil.copy(str(s3_tls.access.ca_file), tmp_path / "ca.pem")
    storage = {"endpoint": s3_tls.endpoint, "region": "us-east-1", "path_style": True, "ca_file": "ca.pem"}
    asked = job(tmp_path, "s3://lake/settings-of-a-job/", storage=storage)
    assert scored(asked).num_rows == ROWS
    plain = job(tmp_path, "s3://lake/settings-of-a-job/", storage=storage | {"path_style": None})
    assert open_job(plain)[0].fingerprint == open_job(asked)[0].fingerprint
    missing = job(tmp_path, "s3://lake/settings-of-a-job/", storage=storage | {"ca_file": "cb.pem"})
    with pytest.raises(JobFileError, match="trusted certificates isn't there"):
        open_job(missing)


def test_a_job_file_stands_for_a_result_in_a_store_that_only_it_names(
    tmp_path: Path, s3_tls: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(s3_tls)
    for name in ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    write(tmp_path / "in" / "0.parquet", table())
    storage = {"endpoint": s3_tls.endpoint, "region": "us-east-1", "path_style": True}
    storage |= {"ca_file": str(s3_tls.access.ca_file)}
    output = f"s3://lake/named-by-a-job/{secrets.token_hex(4)}/{{{{ day }}}}"
    asked = job(tmp_path, str(tmp_path / "in"), output, storage=storage)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(asked.job.model_dump(mode="json", exclude_unset=True)))

    def batchonnx(command: str, *options: str, code: int = 0) -> Any:
        use_settings(StorageSettings())  # as in a process of its own
        arguments = [command, str(tmp_path / "job.yaml"), "--set", "day=7", "--json", *options]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.output

    batchonnx("run")
    assert batchonnx("verify", "--deep")["predicted"] == ROWS
    assert batchonnx("explain", "--row", "7")[0]["row"] == 7
    assert batchonnx("report", "-o", str(tmp_path / "page.html"))["file"] == str(tmp_path / "page.html")
    assert batchonnx("clean") == []
    assert "no complete run" in batchonnx("publish", code=3)
    done = CliRunner().invoke(main, ["verify", "s3://lake/x", "--set", "day=7"])
    assert (done.exit_code, "name it in place of OUTPUT" in done.output) == (2, True)
