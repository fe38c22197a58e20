"""Whoever watches a run sees how far it is, and which stage holds it back."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyte
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.engines.events import Event, Published, RunStarted, ShardCommitted
from batchonnx.errors import Interrupted
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.report.event_lines import events_schema
from batchonnx.report.live import render
from batchonnx.report.summary import format_summary
from batchonnx.scoring.progress import Progress
from batchonnx.storage.s3 import s3_client, split_url
from batchonnx.watch.pace import Pace
from tests import models
from tests.stores.faultproxy import FaultProxy, Rule
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

ROWS, GROUP = 1200, 200
HOOK = """
import time
import numpy as np

def encode(rows):
    time.sleep(0.06)
    return np.stack([rows.column(n).to_numpy() for n in ("f0", "f1", "f2")], axis=1)
"""
SLOW = {"x": {"columns": ["f0", "f1", "f2"], "python": "slow:encode"}}


def make_job(folder: Path, **more: Any) -> JobFile:
    models.linear(folder / "model.onnx")
    (folder / "slow.py").write_text(HOOK)
    columns = {f"f{i}": np.arange(ROWS, dtype=np.float32) for i in range(3)}
    for number in range(3):
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=GROUP)
    job = {
        "name": "watched",
        "model": {"path": "model.onnx"},
        "input": {"path": str(folder / "*.parquet")},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": str(folder / "out")},
        "engine": {"batch_rows": GROUP, "workers": 1},
    }
    return job_from_dict({**job, **more}, folder)


@pytest.mark.parametrize("stage", ["read", "encode", "write"])
def test_the_stage_that_is_slow_is_named_by_live_view_summary_and_report(
    tmp_path: Path, s3: S3Server, s3_folder: str, proxy: FaultProxy, use_store: UseStore, stage: str
) -> None:
    use_store(s3.access.via(proxy.url))
    match stage:
        case "encode":
            job = make_job(tmp_path, features=SLOW)
        case "read":
            bucket, prefix = split_url(s3_folder)
            job = make_job(tmp_path, input={"path": s3_folder})
            for path in tmp_path.glob("*.parquet"):
                s3_client().put(bucket, f"{prefix}/{path.name}", path.read_bytes())
            proxy.add(Rule("delay", ms=700, op="GetObject"))
        case _:
            job = make_job(tmp_path, output={"path": f"{s3_folder}/out"})
            proxy.add(Rule("delay", ms=300, op="UploadPart"))
    pace, views = Pace(), []

    def look(progress: Progress) -> None:
        pace.note(progress)
        views.append(" ".join(render(progress, pace, 80)))

    summary = api.run(job, on_progress=look)
    assert f"{stage} holds it back" in views[-1]
    assert f"; {stage} held workers back" in format_summary(summary)
    page = re.sub(r"<[^>]+>", "", api.report(summary.output).html.decode())
    assert f"{stage} held workers back" in page


def test_requests_that_are_sent_again_are_counted(
    tmp_path: Path, s3: S3Server, s3_folder: str, proxy: FaultProxy, use_store: UseStore
) -> None:
    use_store(s3.access.via(proxy.url))
    rule = proxy.add(Rule("error", op="UploadPart", nth=1))
    seen: list[Progress] = []
    summary = api.run(make_job(tmp_path, output={"path": f"{s3_folder}/out"}), on_progress=seen.append)
    assert (rule.fired, summary.retries, seen[-1].retries) == (1, 1, 1)
    assert "1 sent again" in format_summary(summary)


class Terminal:
    """A real pseudo-terminal, and what stands on it."""

    def __init__(self, columns: int, command: list[str], folder: Path) -> None:
        self.screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self.screen)
        ours, theirs = pty.openpty()
        os.set_blocking(ours, True)
        environment = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color"}
        with subprocess.Popen(
            command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            self.pictures: list[list[str]] = []
            try:
                while chunk := os.read(ours, 65536):
                    self._stream.feed(chunk)
                    self.pictures.append([line.rstrip() for line in self.screen.display])
            except OSError:  # the other end is closed
                pass
            os.close(ours)
            self.code = process.wait()


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_one_block_that_is_redrawn_in_place_and_goes(tmp_path: Path, columns: int) -> None:
    make_job(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "name: watched\nmodel: {path: model.onnx}\ninput: {path: '*.parquet'}\noutput: {path: out}\n"
        "features: {x: {columns: [f0, f1, f2], python: 'slow:encode'}}\n"
        f"engine: {{batch_rows: {GROUP}, workers: 1}}\n"
    )
    command = [sys.executable, "-m", "batchonnx", "run", "job.yaml"]
    terminal = Terminal(columns, command, tmp_path)
    assert terminal.code == 0, terminal.pictures[-1]
    blocks = [picture for picture in terminal.pictures if any("holds it back" in line for line in picture)]
    assert len(blocks) > 3
    for picture in blocks:
        text = " ".join(" ".join(picture).split())
        assert text.count("rows/s now") == 1
        assert re.search(r"[\d,]+ of 3,600 rows \(\d+%\)", text)
        assert "encode holds it back" in text
        assert "ETA" in text or "publishing" in text
    end = terminal.pictures[-1]
    assert not any("holds it back" in line for line in end)
    assert end[0].startswith("watched: 3,600 rows in")


def test_events_are_lines_of_json_as_the_printed_schema_says(tmp_path: Path) -> None:
    make_job(tmp_path)
    good = "model: {path: model.onnx}\ninput: {path: '*.parquet'}\nfeatures: {x: {columns: [f0, f1, f2]}}\n"
    (tmp_path / "job.yaml").write_text(f"{good}output: {{path: out}}\n")
    (tmp_path / "gated.yaml").write_text(f"{good}output: {{path: no}}\ngate: {{scores: {{max_null: 0%}}}}\n")
    done = CliRunner().invoke(main, ["schema", "--events"])
    schema = json.loads(done.stdout)
    assert schema == json.loads(json.dumps(events_schema()))
    check = jsonschema.Draft202012Validator(schema)
    lines = []
    for arguments in (["job.yaml", "--json-lines", "-"], ["job.yaml", "--json-lines", "-"]):
        done = CliRunner().invoke(main, ["run", str(tmp_path / arguments[0]), *arguments[1:]])
        assert done.exit_code == 0, done.stderr
        lines += [json.loads(line) for line in done.stdout.splitlines()]
    file = tmp_path / "events.jsonl"
    failed = CliRunner().invoke(main, ["run", str(tmp_path / "gated.yaml"), "--json-lines", str(file)])
    assert failed.exit_code == 2
    lines += [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        check.validate(line)
    told = [event for event, _ in groupby(line["event"] for line in lines)]
    assert (told[0], told[-3:]) == ("run-started", ["progress", "published", "failed"])
    assert set(told[1:-2]) == {"shard-committed", "progress"}
    begun, *_, progress, published, again, end = lines
    assert len({line["run"] for line in lines[:-2]}) == 1
    assert (begun["rows"], progress["rows_done"], published["summary"]["predicted"]) == (3600,) * 3
    assert sum(line["predicted"] for line in lines if line["event"] == "shard-committed") == 3600
    assert (published["summary"]["is_new"], again["summary"]["is_new"]) == (True, False)
    assert (end["exit_code"], end["run"]) == (2, None)
    assert "scores" in end["problems"][0]["title"]
    broken = {**progress, "rows_done": "many"}
    assert not check.is_valid(broken)


def test_a_run_that_goes_on_tells_so_and_counts_what_was_done_before(tmp_path: Path) -> None:
    job = make_job(tmp_path, features=SLOW)
    lives: list[list[Event]] = [[], []]

    def interrupt(event: Event) -> None:
        lives[0].append(event)
        if isinstance(event, ShardCommitted):
            raise Interrupted

    with pytest.raises(Interrupted):
        api.run(job, on_event=interrupt)
    api.run(job, on_event=lives[1].append)
    first, second = ([e for e in life if isinstance(e, RunStarted | Published)] for life in lives)
    assert first[0].run == second[0].run  # type: ignore[union-attr]
    assert [e.is_resumed for e in (first[0], second[0]) if isinstance(e, RunStarted)] == [False, True]
    last = [event for event in lives[1] if isinstance(event, Progress)][-1]
    assert last.rows_before >= ROWS
    assert (last.rows_done, last.shards) == (last.rows_total, last.shards_total)
