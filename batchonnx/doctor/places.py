"""Places that jobs read or write: folders, buckets, other stores."""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

from batchonnx.doctor.symptom import Symptom, Symptoms
from batchonnx.errors import BatchonnxError
from batchonnx.report.text import duration, of_bytes

LEAST_FREE = 1 << 30
ANSWER_S = 10
HINT_SKEW_S, MOST_SKEW_S = 30, 300
"""S3 refuses requests of a clock that is 15 minutes off; so do others, sooner."""


def check_place(place: str) -> Symptoms:
    """Whether a run could write a result there."""
    if place.startswith("s3://"):
        yield from _check_bucket(place)
    elif "://" in place and not place.startswith("file://"):
        yield from _check_store(place)
    else:
        yield from _check_folder(Path(place.removeprefix("file://")).absolute())


def _check_folder(folder: Path) -> Symptoms:
    name = str(folder)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield Symptom(name, "bad", f"{there} is no folder", "name a folder")
        return
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".batchonnx-doctor-") as made:
            trial = Path(made) / "a"
            trial.write_bytes(b"doctor")
            os.link(trial, Path(made) / "b")
            links = "hard links"
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).name != "a":
            fix = "name a folder that you may write to"
            yield Symptom(name, "bad", f"{there} can't be written: {error.strerror or error}", fix)
            return
        links = "no hard links: --incremental copies kept parts"
    usage = shutil.disk_usage(there)
    told = f"{_file_system(there)}, {of_bytes(usage.free)} of {of_bytes(usage.total)} free, {links}"
    if usage.free < LEAST_FREE:
        yield Symptom(name, "hint", told, "free some space: a result takes its own beside the former one")
    else:
        yield Symptom(name, "good", told)


def _file_system(folder: Path) -> str:
    """Its kind, by the longest mount point above a folder."""
    best = ("", "a file system")
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return best[1]
    for line in mounts:
        _, point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _check_bucket(url: str) -> Symptoms:
    from batchonnx.ledger.object_folder import ObjectFolder
    from batchonnx.ledger.preflight import check_store

    # Of its own: a run may be doing the same at the output itself.
    folder = ObjectFolder(f"{url.rstrip('/')}/.batchonnx-doctor-{secrets.token_hex(4)}")
    try:
        begin = time.perf_counter()
        folder.head("nothing")
        answer_ms = 1000 * (time.perf_counter() - begin)
        check_store(folder, is_trusted=False)
    except BatchonnxError as error:
        yield from _told(url, error)
    else:
        endpoint = folder.s3.requests.endpoint
        told = f"{endpoint} answers in {answer_ms:.0f} ms, and keeps preconditions and uploads"
        yield Symptom(url, "good", told)
    try:
        yield from check_skew(folder.s3.requests.endpoint)
    except BatchonnxError:
        return  # there is no client: it was told


def _check_store(url: str) -> Symptoms:
    from batchonnx.storage.paths import open_filesystem

    name = f"{url.rstrip('/')}/.batchonnx-doctor-{secrets.token_hex(4)}"
    try:
        filesystem, path = open_filesystem(name)
        with filesystem.open_output_stream(path) as file:
            file.write(b"doctor")
        filesystem.delete_file(path)
    except BatchonnxError as error:
        yield from _told(url, error)
    except (OSError, ValueError) as error:
        fix = "check address, credentials and rights; the package for the scheme may want an option"
        yield Symptom(url, "bad", f"it can't be written: {' '.join(str(error).split())[:200]}", fix)
    else:
        fix = "write there with output.single_writer: trusted, from one run at a time"
        yield Symptom(url, "hint", "it can be written; two runs at once aren't kept apart", fix)


def check_skew(endpoint: str) -> Symptoms:
    """This machine's clock against that of whoever answers at an address; nothing if nobody does."""
    ahead = _ahead_s(endpoint)
    if ahead is None:
        return
    told = f"{duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} {endpoint}"
    fix = "set the clock, by NTP for instance"
    if abs(ahead) >= HINT_SKEW_S:
        yield Symptom("clock", "bad" if abs(ahead) >= MOST_SKEW_S else "hint", told, fix)
    else:
        yield Symptom("clock", "good", f"within {HINT_SKEW_S} s of {endpoint}")


def _ahead_s(endpoint: str) -> float | None:
    from batchonnx.storage.settings import current_settings

    trusted = current_settings().ca_file or os.environ.get("AWS_CA_BUNDLE")
    asked = urllib.request.Request(endpoint, method="HEAD")
    try:
        context = ssl.create_default_context(cafile=trusted)
        with urllib.request.urlopen(asked, timeout=ANSWER_S, context=context) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    return time.time() - parsedate_to_datetime(date).timestamp() if date else None


def _told(place: str, error: BatchonnxError) -> Symptoms:
    for problem in error.problems:
        facts = "; ".join(f"{name}: {told}" for name, told in problem.facts.items() if name == "found")
        yield Symptom(place, "bad", f"{problem.title}{f' ({facts})' if facts else ''}", problem.fix)
