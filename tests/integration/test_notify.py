"""Who is told how a run has ended: once, signed, again if need be, and never at the cost of the run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.engines.events import Warned
from batchonnx.errors import GateError, JobFileError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.watch import webhook
from tests import models
from tests.integration.test_docs import table
from tests.receiver import Request, receiving

BAD = 2
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def make_job(folder: Path, **more: Any) -> JobFile:
    """Forty rows, two of which are bad."""
    models.identity(folder / "model.onnx", "int64", ["n"])
    codes = pa.array([None if row < BAD else row for row in range(40)], pa.int64())
    pq.write_table(pa.table({"code": codes}), folder / "in.parquet")
    job = {
        "name": "codes",
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "code"}},
        "errors": {"max_bad_rows": BAD},
        "output": {"path": "out"},
    }
    return job_from_dict({**job, **more}, folder)


@contextmanager
def hooked(*answers: int) -> Iterator[tuple[str, list[Request]]]:
    """A webhook's URL, which holds a secret; its answers lead elsewhere and ask for patience."""
    with receiving(*answers, Location="/elsewhere", Retry_After="86400") as (url, taken):
        yield f"{url}/hook?token=hidden", taken


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a wait."""
    monkeypatch.setattr(webhook, "WAIT_S", 0.0)
    monkeypatch.setattr(webhook, "JITTER_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def run(job: JobFile, **options: Any) -> list[str]:
    """The warnings of a run."""
    events: list[Any] = []
    api.run(job, on_event=events.append, **options)
    return [event.text for event in events if isinstance(event, Warned)]


def test_success_and_quarantine_are_told_once_each_with_what_came_of_the_run(tmp_path: Path) -> None:
    with hooked() as (url, taken):
        told = {"webhook": url}
        job = make_job(tmp_path, notify={"on_success": told, "on_quarantine": told, "on_failure": told})
        assert run(job) == []
        assert run(job) == []  # the result is there already
    success, quarantine = (json.loads(one.body) for one in taken)
    assert {*success, "error", "exit_code", "problems"} == set(table(OPERATIONS, "keys: notice"))
    assert (success["event"], quarantine["event"]) == ("success", "quarantine")
    assert (success["rows_in"], success["predicted"], success["quarantined"]) == (40, 38, BAD)
    assert success["output"] == str(tmp_path / "out")
    assert quarantine["text"] == "codes: 2 of 40 rows are in quarantine"
    assert success["run"] == quarantine["run"] is not None


@pytest.mark.parametrize("key", ["whsec_" + base64.b64encode(b"\x00secret\xff").decode(), "plain words"])
def test_a_message_is_signed_and_comes_again_under_one_id_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    with hooked(503, 429, 500) as (url, taken):
        monkeypatch.setenv("HOOK_URL", url)
        monkeypatch.setenv("HOOK_KEY", key)
        told = {"webhook_env": "HOOK_URL", "secret_env": "HOOK_KEY"}
        assert run(make_job(tmp_path, notify={"on_success": told})) == []
    assert len(taken) == 4
    assert len({one.headers["webhook-id"] for one in taken}) == 1
    headers, body = taken[-1].headers, taken[-1].body
    secret = b"\x00secret\xff" if key.startswith("whsec_") else key.encode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


def test_a_failure_is_told_with_its_problems_and_exit_code(tmp_path: Path) -> None:
    with hooked() as (url, taken):
        told = {"on_failure": {"webhook": url}, "on_success": {"webhook": url}}
        with pytest.raises(GateError):
            api.run(make_job(tmp_path, notify=told, gate={"y": {"max": 3}}))
        with pytest.raises(Exception, match="other"):
            api.run(make_job(tmp_path, notify=told, features={"other": {"column": "code"}}))
    gate, contract = (json.loads(one.body) for one in taken)
    assert (gate["event"], gate["error"], gate["exit_code"]) == ("failure", "GateError", 4)
    assert "y" in gate["problems"][0]["title"]
    assert (contract["exit_code"], contract["run"]) == (2, None)


@pytest.mark.parametrize("trouble", ["refused", "forbidden", "moved", "never", "unset", "command"])
def test_nobody_who_cannot_be_told_keeps_a_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    answers = {"forbidden": [403], "moved": [302], "never": [500] * webhook.TRIES}.get(trouble, [])
    with hooked(*answers) as (url, taken):
        notice: dict[str, Any] = {"webhook": url}
        match trouble:
            case "refused":
                notice = {"webhook": "http://127.0.0.1:9/hook?token=hidden"}
            case "unset":
                notice = {"webhook_env": "NO_SUCH_HOOK"}
            case "command":
                notice = {"command": ["sh", "-c", "echo no pager >&2; exit 7"]}
        (warning,) = run(make_job(tmp_path, notify={"on_success": notice}))
    expected = {
        "refused": "Connection refused",
        "forbidden": "403",
        "moved": "302",
        "never": "500",
        "unset": "NO_SUCH_HOOK",
        "command": "ended with 7: no pager",
    }[trouble]
    assert expected in warning
    assert "hidden" not in warning
    assert len(taken) == len(answers)
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_command_gets_the_message_in_the_job_s_folder(tmp_path: Path) -> None:
    command = ["sh", "-c", "cat > told-$BATCHONNX_EVENT.json"]
    assert run(make_job(tmp_path, notify={"on_quarantine": {"command": command}})) == []
    assert json.loads((tmp_path / "told-quarantine.json").read_text())["quarantined"] == BAD


def test_the_command_line_warns_and_ends_as_if_all_were_told(tmp_path: Path) -> None:
    models.row_sum(tmp_path / "model.onnx")
    pq.write_table(pa.table({f"f{i}": np.zeros(9, np.float32) for i in range(3)}), tmp_path / "in.parquet")
    (tmp_path / "job.yaml").write_text(
        "model: {path: model.onnx}\ninput: {path: in.parquet}\noutput: {path: out}\n"
        "notify: {on_success: {command: [no-such-program]}}\n"
    )
    done = CliRunner().invoke(main, ["run", str(tmp_path / "job.yaml"), "--quiet"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("warning: notify: on_success, command: ")
    assert "no-such-program" in done.stderr


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ({"on_success": {}}, "nobody is told"),
        ({"on_success": {"webhook": "https://u:p@example.com/x"}}, "no secrets"),
        ({"on_success": {"webhook": "ftp://example.com"}}, "a URL like"),
        ({"on_success": {"command": ["x"], "secret_env": "K"}}, "without a webhook"),
        ({"on_success": {"webhook": "https://a.example", "webhook_env": "B"}}, "one URL"),
        ({"on_succes": {"command": ["x"]}}, "did you mean"),
    ],
)
def test_a_job_that_tells_nobody_or_tells_secrets_is_refused(
    tmp_path: Path, notify: dict[str, Any], words: str
) -> None:
    with pytest.raises(JobFileError, match=words):
        make_job(tmp_path, notify=notify)
