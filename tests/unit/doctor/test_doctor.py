"""Broken environments, each really so, get the line that says what to do."""

from __future__ import annotations

import http.server
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from batchonnx.doctor.cluster import differing
from batchonnx.doctor.machine import check_files
from batchonnx.doctor.places import check_place, check_skew
from batchonnx.doctor.symptom import Symptom
from batchonnx.doctor.view import format_nodes, format_symptoms
from tests.site import Site
from tests.stores.badstore import BadStore
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

Doctor = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def doctor(site: Site, tmp_path: Path) -> Doctor:
    """Run the command with that site folder alone; the first finding of each check."""

    def run(*places: str, expected: int) -> dict[str, dict[str, str]]:
        done = site.run("doctor", "--json", *places, cwd=tmp_path)
        assert done.returncode == expected, done.stdout + done.stderr
        found: dict[str, dict[str, str]] = {}
        for symptom in json.loads(done.stdout)["here"]:
            found.setdefault(symptom["check"], symptom)
        return found

    return run


@pytest.mark.slow
def test_an_environment_that_is_whole_has_no_faults(doctor: Doctor) -> None:
    found = doctor(expected=0)
    assert {symptom["level"] for symptom in found.values()} <= {"good", "hint"}
    assert found["model"]["found"] == "a tiny model runs on the CPU"


def test_without_onnxruntime_it_says_what_to_install(site: Site, doctor: Doctor) -> None:
    site.remove("onnxruntime")
    found = doctor(expected=3)
    assert found["onnxruntime"]["found"] == "ONNX Runtime isn't installed"
    assert "batchonnx[cpu]" in found["onnxruntime"]["fix"]
    assert found["model"]["level"] == "bad"


def test_both_wheels_are_told_to_be_removed(site: Site, doctor: Doctor) -> None:
    site.install("onnxruntime-gpu", "1.30.0")
    found = doctor(expected=3)
    assert "overwrite each other" in found["onnxruntime"]["found"]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found["onnxruntime"]["fix"]


@pytest.mark.slow
def test_code_of_another_version_than_its_metadata_is_told(site: Site, doctor: Doctor) -> None:
    """As the other wheel leaves it that was installed over this one."""
    site.install("onnxruntime", "1.29.0")
    found = doctor(expected=3)
    assert "onnxruntime is 1.29.0 by its metadata, and" in found["onnxruntime"]["found"]
    assert "pip install onnxruntime==1.29.0" in found["onnxruntime"]["fix"]


def test_a_package_that_is_too_old_or_missing_is_named(site: Site, doctor: Doctor) -> None:
    site.install("pyarrow", "15.0.0")
    old = doctor(expected=3)["packages"]
    assert "pyarrow" in old["found"]
    assert "15.0.0" in old["found"]
    site.remove("lark")
    site.install("pyarrow", "26.0.1")
    missing = doctor(expected=3)["packages"]
    assert missing["found"] == "lark is missing"
    assert missing["fix"].startswith("pip install --upgrade 'lark>=")


@pytest.mark.slow
def test_a_package_that_can_t_be_imported_is_named(site: Site, doctor: Doctor) -> None:
    site.remove("numpy")
    site.install("numpy", "2.4.6")
    (site.folder / "numpy").mkdir()
    (site.folder / "numpy" / "__init__.py").write_text("raise ImportError('libopenblas.so.0: no such file')")
    found = doctor(expected=3)["packages"]
    assert "libopenblas.so.0" in found["found"]
    assert found["fix"] == "pip install --force-reinstall numpy==2.4.6"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity on this system")
def test_cores_that_may_not_be_used_aren_t_counted(doctor: Doctor) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert doctor(expected=0)["cores"]["alike"] == "1"
    finally:
        os.sched_setaffinity(0, allowed)


def test_few_open_files_are_a_hint() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        (found,) = check_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.level == "hint"
    assert found.fix == "ulimit -n 1024"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (found,) = check_place(str(tmp_path / "to" / "come"))
    assert found.level == "good" or "free some space" in found.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["/proc/scores", "/dev/null"])
def test_a_folder_that_can_t_be_written_is_told(place: str) -> None:
    (found,) = check_place(place)
    assert found.level == "bad"
    assert found.fix.startswith("name a folder")


def test_a_bucket_that_keeps_its_promises_is_left_as_it_was(
    s3: S3Server, use_store: UseStore, s3_folder: str
) -> None:
    from batchonnx.ledger.object_folder import ObjectFolder

    use_store(s3)
    found = list(check_place(s3_folder))
    assert [symptom.level for symptom in found] == ["good", "good"]
    assert "keeps preconditions" in found[0].found
    assert not list(ObjectFolder(s3_folder).list())


def test_a_store_that_ignores_preconditions_is_told(bad_store: BadStore, use_store: UseStore) -> None:
    use_store(bad_store)
    found = next(check_place("s3://scores/doctor"))
    assert found.level == "bad"
    assert "ignores preconditions" in found.found
    assert "single_writer: trusted" in found.fix


def test_keys_that_the_store_doesn_t_know_are_told(
    s3: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    found = next(check_place("s3://scores/doctor"))
    assert found.level == "bad"
    assert "credentials" in found.fix


@pytest.mark.slow
def test_a_store_where_nobody_answers_is_told(
    s3: S3Server, use_store: UseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = list(check_place("s3://scores/doctor"))
    assert [symptom.level for symptom in found] == ["bad"]
    assert found[0].fix


@pytest.fixture
def clock_server() -> Iterator[Callable[[float], str]]:
    """A server whose clock is so many seconds off."""
    servers: list[http.server.HTTPServer] = []

    def start(off_s: float) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response_only(403)
                self.send_header("Date", formatdate(time.time() + off_s, usegmt=True))
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("off_s", "level", "told"), [(0, "good", "within"), (120, "hint", "behind"), (-3600, "bad", "ahead of")]
)
def test_a_clock_that_differs_from_the_store_s_is_told(
    clock_server: Callable[[float], str], off_s: float, level: str, told: str
) -> None:
    (found,) = check_skew(clock_server(off_s))
    assert found.level == level
    assert told in found.found


def test_what_one_node_has_otherwise_is_marked() -> None:
    cores = [Symptom("cores", "good", f"{n} of 8 cores", alike=f"{n}") for n in (8, 8, 2)]
    disk = Symptom("temporary", "good", "/tmp")
    found = differing({f"node-{i}": [one, disk] for i, one in enumerate(cores)})
    assert [nodes[0].level for nodes in found.values()] == ["good", "good", "hint"]
    assert found["node-2"][0].found == "2 of 8 cores (most nodes: 8)"
    assert found["node-2"][0].fix
    text = format_nodes(found)
    assert text.count("8 of 8 cores") == 2
    assert text.count("/tmp") == 1
    assert text.endswith("3 nodes: no faults, 1 hint")


def test_what_is_told_is_harmless_to_a_terminal() -> None:
    text = format_symptoms([Symptom("a", "bad", "x\x1b[31m", "y\n")])
    assert "\x1b" not in text
    assert text.endswith("1 fault, 0 hints")
