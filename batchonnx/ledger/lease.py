"""One writer: a run holds a lease on its output for as long as it lives.

A kernel lock decides between processes that share a kernel: it ends with its holder, however that
dies. Between machines, whose locks may not meet (some network and object file systems), the lease's
record decides: its holder counts up a beat, and whoever wants it watches that count by its own
clock. No two clocks are compared.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from batchonnx.errors import OutputBusyError, Problem
from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.process import this_machine

BEAT_S = 2.0
WATCH_S = 4 * BEAT_S
"""A holder elsewhere whose count stands still for so long is taken for dead."""


@contextmanager
def hold_lease(output: Path, on_lost: Callable[[], None]) -> Iterator[None]:
    """Be the one who writes `output`, until the block ends.

    on_lost: called, from another thread, if somebody else has taken the lease over.
    Raises OutputBusyError naming who holds it, StorageError.
    """
    path = output.parent / f".{output.name}.batchonnx-lease"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock(path)
    except OSError as error:
        raise disk_error(error, path) from error
    ended = threading.Event()
    try:
        _wait_for_the_dead(path, handle)
        holder = secrets.token_hex(8)
        record = {
            "holder": holder,
            "machine": this_machine(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        record["since"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _write(handle, record | {"beat": 0})
        beating = threading.Thread(
            target=_beat, args=(handle, record, ended, on_lost), name="lease", daemon=True
        )
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            if _read(handle).get("holder") == holder:
                path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(path: Path) -> int:
    """The lease's file, open and locked; made if need be."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former holder may have removed the file between the two calls above.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            record = _read(handle)
            os.close(handle)
            raise busy(path, record) from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _wait_for_the_dead(path: Path, handle: int) -> None:
    """Make sure that a holder on another machine, who left a record, doesn't count on."""
    record = _read(handle)
    if not record or record.get("machine") == this_machine():
        return
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(BEAT_S / 4)
        if _read(handle) != record:
            raise busy(path, _read(handle) or record)


def _beat(
    handle: int, record: dict[str, object], ended: threading.Event, on_lost: Callable[[], None]
) -> None:
    beat = 0
    while not ended.wait(BEAT_S):
        beat += 1
        # A disk that is full or away for a moment costs a beat, not the run.
        with suppress(OSError):
            if _read(handle).get("holder") != record["holder"]:
                on_lost()
                return
            _write(handle, record | {"beat": beat})


def _read(handle: int) -> dict[str, object]:
    try:
        record = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _write(handle: int, record: dict[str, object]) -> None:
    # In one call, and of one length: a reader never sees half of it.
    os.pwrite(handle, json.dumps(record).encode().ljust(512), 0)


def busy(path: Path | str, record: Mapping[str, object]) -> OutputBusyError:
    """Who holds a lease, told with what to do."""
    facts = {"lease": str(path)}
    if record:
        facts["held by"] = holder_of(record)
    fix = "wait until it is done; the same command then finds the result, or goes on where it stopped"
    return OutputBusyError(Problem("another run is writing this output", facts, fix))


def holder_of(record: Mapping[str, object]) -> str:
    """Which process a lease's record tells of, for people."""
    return f"process {record.get('pid')} on {record.get('host')}, since {record.get('since')}"
