"""No cluster, or none that lets us in: one error each, exit code 3."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchonnx.cli import main
from batchonnx.cluster.connect import _headers, connect
from batchonnx.errors import ClusterError

TOKEN = "distinctivet0ken"


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """As much of Ray's dashboard as is asked before a job is handed over: two nodes, none of them here."""

    def do_GET(self) -> None:
        ips = ("198.51.100.1", "198.51.100.2")
        nodes = [{"node_ip": ip, "resources_total": {"CPU": 4.0}, "state": "ALIVE"} for ip in ips]
        answer: dict[str, object] = {
            "version": "4",
            "ray_version": "2.60.0",
            "ray_commit": "",
            "session_name": "",
        }
        if self.path.startswith("/api/v0/nodes"):
            answer = {"data": {"result": {"result": nodes}}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Dashboard(http.server.BaseHTTPRequestHandler):
    """Any web server that isn't Ray's: it wants a token at /locked, and knows no other page."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization")
        status = 404 if not self.path.startswith("/locked") else 403 if known else 401
        self.send_response(status)
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(params=[Dashboard])
def server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), request.param) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def told(address: str | None) -> str:
    with pytest.raises(ClusterError) as caught:
        connect(address)
    assert TOKEN not in str(caught.value)
    (problem,) = caught.value.problems
    assert problem.fix
    return problem.title


def test_nothing_at_the_address_is_said_whoever_named_it(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        nobody = f"127.0.0.1:{once.getsockname()[1]}"
    assert told(f"http://{nobody}") == "no cluster answers at the address"
    assert told(nobody) == "no cluster answers at the address"
    assert told("nobody") == "that is no cluster's address"
    monkeypatch.setenv("RAY_ADDRESS", f"http://{nobody}")
    assert told(None) == "no cluster answers at the address"
    assert told(server) == "what answers there is no Ray dashboard"


def test_a_token_that_is_missing_or_wrong_is_said_and_not_shown(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert told(f"{server}/locked") == "the cluster wants a token"
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert told(f"{server}/locked") == "the cluster refuses the token"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert told(server) == "the file with the cluster's token can't be read"


@pytest.mark.parametrize("mode", [None, "token", "disabled"])
def test_the_machine_s_own_token_is_for_heads_of_this_machine(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    monkeypatch.delenv("RAY_AUTH_MODE") if mode is None else monkeypatch.setenv("RAY_AUTH_MODE", mode)
    wanted = "the cluster wants a token" if mode == "disabled" else "the cluster refuses the token"
    assert told(f"{server}/locked") == wanted
    there = {} if mode != "token" else {"Authorization": f"Bearer {TOKEN}"}
    assert _headers("http://head.example.com:8265") == there


def test_headers_that_are_no_json_are_said(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", TOKEN)
    assert told(server) == "RAY_JOB_HEADERS isn't a JSON object"
    monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps([TOKEN]))
    assert told(server) == "RAY_JOB_HEADERS isn't a JSON object"


@pytest.mark.parametrize("server", [Elsewhere], indirect=True)
def test_a_job_with_local_paths_is_refused_by_a_cluster_elsewhere(server: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "model: {path: ../model.onnx}\ninput: {path: /data/in}\noutput: {path: out}\n"
        "features: {x: {column: a, image: {preset: ../preprocessor_config.json}}}\n"
    )
    done = CliRunner().invoke(main, ["submit", str(tmp_path / "job.yaml"), "--address", server])
    assert done.exit_code == 2, done.output
    assert re.findall(r"job\.yaml:\d+  (\S+)", done.stderr) == [
        "model.path",
        "input.path",
        "features.x.image.preset",
        "output.path",
    ]
    ways_out = re.findall(r"^  fix +(.*)", done.stderr, re.MULTILINE)
    assert all("store" in way and "--shared" in way for way in ways_out)
