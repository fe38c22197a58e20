"""The cases that need a store: a real S3 server on this machine, and the fault proxy to add latency.

Both in processes of their own, so that what they take of the machine is theirs, not the reader's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import boto3

from tests.benchmarks import many
from tests.benchmarks.data import make_case
from tests.stores.s3server import S3Server

DELAY_MS = 30
OBJECTS, OBJECT_ROWS = 4000, 250
Measure = Callable[[Path], dict[str, float]]


@dataclass(frozen=True)
class Proxied:
    """The store behind the fault proxy."""

    endpoint: str
    control: str

    def delay(self, ms: int) -> None:
        """Of every request from now on."""
        rules = [{"fault": "delay", "ms": ms}] if ms else []
        self._ask("PUT", json.dumps(rules).encode())

    def requests(self) -> dict[str, int]:
        """Operation -> how many there were."""
        return dict(json.loads(self._ask("GET"))["ops"])

    def _ask(self, method: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.control, data, method=method)
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())


@contextmanager
def store(folder: Path) -> Iterator[tuple[S3Server, Proxied]]:
    """A server with the bucket `lake`, which this process and its children mean by s3://."""
    with S3Server(folder, buckets=("lake",)) as server:
        os.environ.update({**server.env(), "NO_PROXY": "127.0.0.1,localhost"})
        command = [sys.executable, "-m", "tests.stores.faultproxy", server.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
            assert proxy.stdout is not None
            said = proxy.stdout.readline() + proxy.stdout.readline()
            endpoint, control = re.findall(r"http://\S+", said)
            try:
                yield server, Proxied(endpoint, control)
            finally:
                proxy.send_signal(signal.SIGTERM)
        server.kill9()


def s3(folder: Path, rounds: int, measure: Measure) -> Iterator[str]:
    """The middle and the tiny MLP over one large object, in turn with the same file here."""
    with store(folder / "s3") as (server, proxied):
        cases = {name: make_case(name, folder) for name in ("middle", "tiny")}
        boto3.client("s3").upload_file(str(folder / "table.parquet"), "lake", "table.parquet")
        for name, case in cases.items():
            remote = copy_of_job(case.folder, folder / f"{name}-s3", "s3://lake/table.parquet")
            ways = [
                ("here", case.folder, server.endpoint, 0),
                ("s3", remote, server.endpoint, 0),
                ("s3, proxy", remote, proxied.endpoint, 0),
                (f"s3, {DELAY_MS} ms", remote, proxied.endpoint, DELAY_MS),
            ]
            seconds = _in_turn(ways, rounds, proxied, measure)
            yield f"s3: {name}, {case.rows:,} rows"
            for way, figures in seconds.items():
                yield f"  {way:<10} {median(figures):8.3f} s {case.rows / median(figures):14,.0f} rows/s"
            here, there, none, late = (median(figures) for figures in seconds.values())
            if name == "middle":
                yield f"  {here / there:.2f} of the local rows/s   (goal: 0.9)"
            else:
                yield f"  {none / late:.2f} of the rows/s without {DELAY_MS} ms   (goal: 0.8)"


def small(folder: Path, rounds: int, measure: Measure) -> Iterator[str]:
    """Thousands of small objects, footers never seen before."""
    home = folder / "small"
    many.make_files(OBJECTS, home / "here", OBJECT_ROWS, OBJECT_ROWS)
    with store(folder / "s3-small") as (_, proxied):
        client = boto3.client("s3")
        for path in sorted((home / "here" / "in").iterdir()):
            client.upload_file(str(path), "lake", f"in/{path.name}")
        job = copy_of_job(home / "here", home / "there", "s3://lake/in/")
        shutil.copy(home / "here" / "model.onnx", job)
        figures: dict[int, list[dict[str, float]]] = {0: [], DELAY_MS: []}
        for _ in range(rounds):
            for ms, seen in figures.items():
                os.environ["XDG_CACHE_HOME"] = str(home / "cache")
                shutil.rmtree(home / "cache", ignore_errors=True)
                os.environ["AWS_ENDPOINT_URL"] = proxied.endpoint
                proxied.delay(ms)
                before = sum(proxied.requests().values())
                seen.append(measure(job))
                seen[-1]["requests"] = (sum(proxied.requests().values()) - before) / OBJECTS
        yield f"small: {OBJECTS:,} objects of {OBJECT_ROWS} rows"
        for ms, seen in figures.items():
            keys = ("seconds", "first_row_s", "requests")
            total, first, requests = (median(one[key] for one in seen) for key in keys)
            yield f"  {ms:2} ms  {total:7.2f} s  first batch {first:6.2f} s  {requests:.2f} requests each"
        none, late = (median(one["seconds"] for one in seen) for seen in figures.values())
        yield f"  {late / none:.2f} times as long   (goal: 1.5; first batch within 15 s, 2.1 requests)"


def _in_turn(
    ways: Sequence[tuple[str, Path, str, int]], rounds: int, proxied: Proxied, measure: Measure
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way[0]: [] for way in ways}
    for number in range(rounds):
        for way, job, endpoint, ms in ways:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            proxied.delay(ms)
            seconds[way].append(measure(job)["seconds"])
            shown = f"  {job.name} {number + 1}/{rounds} {way:<10} {seconds[way][-1]:.3f} s"
            print(shown, file=sys.stderr, flush=True)
    return seconds


def copy_of_job(home: Path, target: Path, source: str, output: str = "s3://lake/out/{{ run }}") -> Path:
    """A folder with the same job over another input, and into the store."""
    target.mkdir(parents=True, exist_ok=True)
    text = (home / "job.yaml").read_text()
    changed = re.sub(r"(input: \{path: )[^}]+", rf"\g<1>{source}", text)
    changed = re.sub(r"(output: \{path: )[^,}]+", rf"\g<1>{output}", changed)
    (target / "job.yaml").write_text(changed)
    return target
