"""Logs, traces and lineage of a run, as those who collect them get them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from batchonnx import api
from batchonnx.cli import main
from batchonnx.engines.events import Warned
from batchonnx.errors import GateError
from batchonnx.scoring.progress import STAGES
from batchonnx.watch.lineage import dataset_name
from tests.integration.test_live import ROWS, make_job
from tests.receiver import Request, receiving

HELD = {
    "outputs": {"score": {"from": "scores", "index": 0}},
    "gate": {"score": {"max": -1e9}},
    "output": {"path": "held"},
}
"""What the gate won't let pass."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_job(tmp_path)
    text = "name: watched\nmodel: {path: model.onnx}\ninput: {path: '*.parquet'}\noutput: {path: out}\n"
    (tmp_path / "job.yaml").write_text(f"{text}features: {{x: {{columns: [f0, f1, f2]}}}}\n")
    return tmp_path


def spans_of(taken: list[Request]) -> list[Any]:
    """Of what came over OTLP: its resource's attributes, and each span."""
    spans: list[Any] = []
    for one in taken:
        request = ExportTraceServiceRequest()
        request.ParseFromString(one.body)
        for resource in request.resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            spans.extend((named, span) for scope in resource.scope_spans for span in scope.spans)
    return spans


def test_spans_of_run_shards_and_stages_hang_together_below_the_caller_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    monkeypatch.setenv("TRACEPARENT", f"00-{above}-{parent}-01")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with receiving() as (url, taken):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        summary = api.run(make_job(tmp_path))
        with pytest.raises(GateError):
            api.run(make_job(tmp_path, **HELD))
    spans = spans_of(taken)
    named, _ = spans[0]
    assert (named["service.name"], named["deployment.environment.name"]) == ("batchonnx", "test")
    assert {span.trace_id.hex() for _, span in spans} == {above}
    runs = [span for _, span in spans if span.name == "batchonnx run"]
    assert [run.parent_span_id.hex() for run in runs] == [parent, parent]
    good, bad = runs
    assert {one.key: one.value.int_value for one in good.attributes}["batchonnx.predicted"] == 3 * ROWS
    assert summary.predicted == 3 * ROWS
    assert (bad.status.code, bad.events[0].name) == (2, "exception")
    shards = [span for _, span in spans if span.name == "batchonnx shard"]
    assert {shard.parent_span_id for shard in shards} == {run.span_id for run in runs}
    for shard in shards:
        assert shard.start_time_unix_nano < shard.end_time_unix_nano
        stages = [span for _, span in spans if span.parent_span_id == shard.span_id]
        assert [span.name for span in stages] == [f"batchonnx {stage}" for stage in STAGES]


def test_a_collector_that_is_gone_or_unknown_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    api.run(make_job(tmp_path), on_event=events.append)
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert "carrier-pigeon" in warnings[0]
    assert "batchonnx[lineage]" in warnings[1]


def test_lineage_names_datasets_with_their_schemas_and_tells_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lineage.json"
    for name, value in {"TYPE": "file", "LOG_FILE_PATH": str(file), "APPEND": "true"}.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    run = "0190a000-0000-7000-8000-000000000000"
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/dag.task/{run}")
    job = make_job(tmp_path)
    api.run(job)
    api.run(job)  # it is there already
    with pytest.raises(GateError):
        api.run(make_job(tmp_path, **HELD))
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["eventType"] for event in told] == ["START", "COMPLETE", "START", "FAIL"]
    start, complete, _, fail = told
    assert start["run"]["runId"] == complete["run"]["runId"] != fail["run"]["runId"]
    assert start["run"]["facets"]["parent"]["run"]["runId"] == run
    (source,), (result,) = complete["inputs"], complete["outputs"]
    assert (source["namespace"], source["name"]) == ("file", str(tmp_path))
    assert source["facets"]["schema"]["fields"][0] == {"name": "f0", "type": "float", "fields": []}
    assert [field["name"] for field in result["facets"]["schema"]["fields"]] == ["scores"]
    assert result["outputFacets"]["outputStatistics"]["rowCount"] == 3 * ROWS
    assert "score" in fail["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://lake/events/day=1/", ("s3://lake", "events/day=1")),
        ("s3://lake/events/*/a-*.parquet", ("s3://lake", "events")),
        ("/data/x.parquet", ("file", "/data/x.parquet")),
        ("/data/**/x.parquet", ("file", "/data")),
    ],
)
def test_a_dataset_is_named_by_openlineage_s_rules(path: str, expected: tuple[str, str]) -> None:
    assert dataset_name(path) == expected


def test_the_log_as_json_has_run_shard_and_host_in_each_line(folder: Path) -> None:
    done = CliRunner().invoke(main, ["run", str(folder / "job.yaml"), "--log-format", "json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"].partition(":")[0] for line in lines] == ["run started", "published"]
    assert all(line["run"] and line["host"] and line["job"] == "watched" for line in lines)
    assert all("shard" in line and line["level"] == "info" for line in lines)
    failed = CliRunner().invoke(main, ["run", str(folder / "none.yaml"), "--log-format", "text"])
    assert failed.exit_code == 2
    assert "error: there is no job file" in failed.stderr


def test_a_program_that_embeds_us_gets_records_of_its_logging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "batchonnx"):
        api.run(make_job(tmp_path))
    shards = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert [record.shard for record in shards] == [0]  # type: ignore[attr-defined]
    assert all(record.run and record.host for record in shards)  # type: ignore[attr-defined]
