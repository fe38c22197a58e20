"""A Ray head with its dashboard, of a test's own: other ports, another home, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S, END_S = 90, 30
OF_THE_USER = ("RAY_", "AWS_")
"""Variables of whoever runs the tests, which would change what is tested."""


@dataclass(frozen=True)
class Head:
    """A head that takes jobs. url: its dashboard's. address: its own, for drivers on this machine.

    folder: its home; logs are below. env: what its jobs inherit.
    """

    url: str
    address: str
    folder: Path
    env: Mapping[str, str]

    def logs(self) -> Iterator[Path]:
        """All files that it has written about its jobs."""
        yield from (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())


def free_ports(count: int) -> list[int]:
    """Ports that are free now, outside those that Ray gives its workers (10002 to 19999)."""
    found: list[int] = []
    held = []
    for port in range(21000 + os.getpid() % 7000, 32000):
        try:
            held.append(socket.create_server(("127.0.0.1", port)))
            found.append(port)
        except OSError:
            continue
        if len(found) == count:
            break
    for one in held:
        one.close()
    return found


@contextmanager
def running_head(env: Mapping[str, str] | None = None, token: str | None = None) -> Iterator[Head]:
    """A head with two CPUs. env: more for its jobs. token: what it wants from whoever asks."""
    folder = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))  # short: there will be sockets below it
    gcs, dashboard, agent, grpc, client, export = free_ports(6)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(OF_THE_USER)}
    variables |= {
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    if token:
        variables["RAY_AUTH_TOKEN"] = token
    variables |= env or {}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={gcs}", "--include-dashboard=true", f"--dashboard-port={dashboard}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={grpc}", f"--ray-client-server-port={client}"]
    command += [f"--metrics-export-port={export}", "--num-cpus=2", "--object-store-memory=100000000"]
    command += [f"--temp-dir={folder}", "--disable-usage-stats"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait_for_agent(url, token, process, folder)
        yield Head(url, f"127.0.0.1:{gcs}", folder, variables)
    finally:
        _end(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_agent(url: str, token: str | None, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the dashboard can hand jobs on."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "start.log").read_text()
        try:
            asked = urllib.request.Request(f"{url}/api/jobs/", headers=headers)
            with urllib.request.urlopen(asked, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise AssertionError((folder / "start.log").read_text())


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Ask, then force; and whatever of its own is left, known by its folder."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    kill_all_of(folder)


def kill_all_of(folder: Path) -> None:
    """Whatever has this folder as Ray's home."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_of(entry, folder):
            try:
                os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue


def _is_of(process: Path, folder: Path) -> bool:
    try:
        return f"RAY_TMPDIR={folder}\0".encode() in (process / "environ").read_bytes()
    except OSError:
        return False
