"""Figures of runs as Prometheus takes them; alerts and dashboard are checked by its own tools, and work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from batchonnx import api
from batchonnx.engines.events import Warned
from batchonnx.errors import ContractError
from batchonnx.watch.meters import METRICS
from tests.cluster.head import free_ports
from tests.integration.ray_cluster import ray_cluster
from tests.integration.test_live import ROWS, make_job
from tests.receiver import receiving

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS, DASHBOARD = DEPLOY / "prometheus" / "alerts.yaml", DEPLOY / "grafana" / "batchonnx.json"

Promtool = Callable[..., "subprocess.CompletedProcess[str]"]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed: apt-get install prometheus")
    return found


@pytest.fixture
def promtool() -> Promtool:
    tool = program("promtool")

    def call(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, check=False)

    return call


def samples(text: str) -> dict[str, float]:
    """Name with labels -> value."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_a_short_job_leaves_its_figures_in_a_file_and_at_a_gateway(
    tmp_path: Path, promtool: Promtool
) -> None:
    with receiving() as (url, taken):
        metrics = {"textfile": "batchonnx.prom", "pushgateway": url}
        api.run(make_job(tmp_path, metrics=metrics))
    text = (tmp_path / "batchonnx.prom").read_text()
    (pushed,) = taken
    assert (pushed.method, pushed.path) == ("PUT", "/metrics/job/batchonnx/job_name/watched")
    assert pushed.body.decode() == text
    found = samples(text)
    label = '{job_name="watched"}'
    assert found[f"batchonnx_rows_total{label}"] == found[f"batchonnx_rows_expected{label}"] == 3 * ROWS
    assert found[f"batchonnx_run_success{label}"] == 1
    assert found[f"batchonnx_run_in_progress{label}"] == 0
    assert found[f"batchonnx_shard_duration_seconds_count{label}"] == found[f"batchonnx_shards_total{label}"]
    assert found['batchonnx_stage_seconds_total{job_name="watched",stage="predict"}'] > 0
    assert {re.split("[{]", name)[0] for name in found} >= {
        metric.name for metric in METRICS.values() if metric.kind != "histogram"
    }
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr


def test_a_run_that_fails_says_so_and_a_place_that_refuses_is_a_warning(tmp_path: Path) -> None:
    events: list[Any] = []
    metrics = {"textfile": "nowhere/batchonnx.prom", "pushgateway": "http://127.0.0.1:9"}
    assert api.run(make_job(tmp_path, metrics=metrics), on_event=events.append).predicted == 3 * ROWS
    (warning,) = (event.text for event in events if isinstance(event, Warned))
    assert "nowhere/batchonnx.prom" in warning
    assert "http://127.0.0.1:9" in warning
    held = {
        "metrics": {"textfile": "failed.prom"},
        "gate": {"scores": {"max": 0}},
        "output": {"path": "held"},
    }
    with pytest.raises(ContractError):
        api.run(make_job(tmp_path, **held))
    assert 'batchonnx_run_success{job_name="watched"} 0.0' in (tmp_path / "failed.prom").read_text()


def test_a_port_that_is_taken_is_a_warning(tmp_path: Path) -> None:
    with receiving() as (url, _):
        port, events = int(url.rpartition(":")[2]), []  # type: ignore[var-annotated]
        api.run(make_job(tmp_path), on_event=events.append, metrics_port=port)
    assert any(isinstance(event, Warned) and str(port) in event.text for event in events)


def series(**values: str) -> list[dict[str, str]]:
    """Of an hour, for one job; `ray_`: as Ray's nodes tell them."""
    found = {}
    for name, told in values.items():
        prefix, bare = ("ray_", name.removeprefix("ray_")) if name.startswith("ray_") else ("", name)
        found[f'{prefix}batchonnx_{bare}{{job_name="j"}}'] = f"{told}x60"
    return [{"series": name, "values": told} for name, told in found.items()]


RULES = {
    "BatchonnxRunFailed": series(run_success="0", run_in_progress="0"),
    "BatchonnxNoResult": series(last_success_time_seconds="-99999"),
    "BatchonnxStalled": series(ray_run_in_progress="1", ray_rows_total="5"),
    "BatchonnxBadRows": series(rows_quarantined_total="2", rows_total="100"),
    "BatchonnxStoreRefuses": series(store_retries_total="0+90"),
    "BatchonnxWorkersDie": series(ray_workers_lost_total="0+1"),
}
CALM = series(
    rows_total="0+900",
    rows_quarantined_total="1",
    run_in_progress="1",
    run_success="1",
    store_retries_total="0+1",
)


def test_the_alerts_are_rules_and_each_goes_off_when_it_should(tmp_path: Path, promtool: Promtool) -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == list(RULES)
    tests = []
    for name, bad in RULES.items():
        firing = f'count(ALERTS{{alertname="{name}",alertstate="firing",job_name="j"}})'
        for told, expected in ((bad, [{"labels": "{}", "value": 1}]), (CALM, [])):
            asked = {"expr": firing, "eval_time": "40m", "exp_samples": expected}
            tests.append({"interval": "1m", "input_series": told, "promql_expr_test": [asked]})
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
    )
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())  # type: ignore[no-any-return]


def queries() -> list[str]:
    """Of all panels, with the dashboard's variables filled in as Grafana does."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [query.replace("$job_name", ".*").replace("$__rate_interval", "15s") for query in found]


def test_the_dashboard_is_one_that_grafana_s_own_types_read_without_a_loss() -> None:
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard())))

    def lost(here: Any, there: Any, at: str = "") -> Iterator[str]:
        if isinstance(here, dict):
            for key, value in here.items():
                yield from lost(value, there[key], f"{at}.{key}") if key in there else [f"{at}.{key}"]
        elif isinstance(here, list):
            for number, value in enumerate(here):
                yield from lost(value, there[number], f"{at}[{number}]")
        elif here != there:
            yield at

    assert list(lost(dashboard(), read)) == []
    named = {name for query in queries() for name in re.findall(r"batchonnx_\w+", query)}
    assert {name.removesuffix("_bucket") for name in named} <= METRICS.keys()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


class Scraper:
    """Debian's Prometheus, in a folder of its own."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        scrape = {"job_name": "batchonnx", "static_configs": [{"targets": targets}]}
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        command = [program("prometheus"), f"--config.file={folder / 'prometheus.yaml'}"]
        command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> Scraper:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def ask(self, query: str) -> list[Any]:
        """What a query gives now."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]  # type: ignore[no-any-return]

    def await_answers(self, wanted: list[str], is_over: Callable[[], bool]) -> set[str]:
        """Ask until each query has given something, or all is over; gives those that never did."""
        missing = set(wanted)
        while missing:
            with suppress(OSError):  # it is starting
                missing -= {query for query in missing if self.ask(query)}
            if is_over():
                break
            time.sleep(0.5)
        return missing


OF_ENDED_RUNS = ("last_success", "run_success", "run_duration")
"""What only a run that has ended tells: from a textfile, or a gateway."""


def slow_run(folder: Path, seconds: float, *arguments: str) -> subprocess.Popen[bytes]:
    """A run of about so long, in a process of its own."""
    calls = 3 * ROWS / 200
    make_job(folder)
    (folder / "slow.py").write_text((folder / "slow.py").read_text().replace("0.06", str(seconds / calls)))
    (folder / "job.yaml").write_text(
        "name: watched\nmodel: {path: model.onnx}\ninput: {path: '*.parquet'}\noutput: {path: out}\n"
        "features: {x: {columns: [f0, f1, f2], python: 'slow:encode'}}\n"
        "engine: {batch_rows: 200, workers: 1}\n"
    )
    command = [sys.executable, "-m", "batchonnx", "run", "job.yaml", "--quiet", *arguments]
    return subprocess.Popen(command, cwd=folder)


@contextmanager
def exporter(file: Path) -> Iterator[str]:
    """Serves what a run has left in a file, as node_exporter does: host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(file.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_prometheus_scrapes_a_run_here_and_every_query_of_the_dashboard_gives_data(tmp_path: Path) -> None:
    """One run goes on, another one has ended and left its figures."""
    program("prometheus")
    (port,) = free_ports(1)
    (tmp_path / "ended").mkdir()
    api.run(make_job(tmp_path / "ended", metrics={"textfile": "batchonnx.prom"}))
    run = slow_run(tmp_path, 15, "--metrics-port", str(port))
    with (
        exporter(tmp_path / "ended" / "batchonnx.prom") as ended,
        Scraper(tmp_path, [f"127.0.0.1:{port}", ended]) as scraper,
    ):
        missing = scraper.await_answers(queries(), lambda: run.poll() is not None)
    assert run.wait() == 0
    assert missing == set()


@pytest.mark.slow
def test_prometheus_scrapes_a_run_on_ray(tmp_path: Path) -> None:
    program("prometheus")
    (port,) = free_ports(1)
    with ray_cluster(1, metrics_export_port=port) as cluster:
        events = tmp_path / "events.jsonl"
        run = slow_run(tmp_path, 15, "--engine", "ray", "--json-lines", str(events))
        host = cluster.head_node.node_ip_address
        wanted = [
            query for query in queries() if not any(n in query for n in (*OF_ENDED_RUNS, "shard_duration"))
        ]
        with Scraper(tmp_path, [f"{host}:{port}"]) as scraper:
            missing = scraper.await_answers(wanted, lambda: run.poll() is not None)
        assert run.wait() == 0
    assert missing == set()
    told = [json.loads(line) for line in events.read_text().splitlines()]
    progress = [event for event in told if event["event"] == "progress"]
    assert progress[-1]["rows_done"] == 3 * ROWS
    busy = [event for event in progress if event["slowest_stage"]]
    # A worker tells of a chunk's work when that is done: of a slow hook's, seldom.
    assert busy[-1]["slowest_stage"] == "encode"
    there = [event for event in progress if event["hosts"]]  # at the end they have gone
    assert sum(there[-1]["hosts"].values()) == there[-1]["workers"] == 1
    assert max(event["memory"] for event in progress) > 10 << 20
