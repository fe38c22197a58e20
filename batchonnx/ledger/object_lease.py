"""One writer of an output in a store: a lease that is one object, changed by compare-and-swap alone.

Its holder counts up a beat; whoever wants it watches that count by its own clock, so that no two
clocks are compared. A holder of this machine is looked for among its processes, which needs no wait.
The token grows with each change of holder, and is in every record that a holder writes. A holder that
slept and wakes sees by its own clock that it has, and proves the lease before it writes anything; one
that slept in the middle of a request has that request carried out, so that what would harm another
holder is conditional, or preceded by a proof.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from batchonnx.errors import Interrupted, OutputBusyError, OutputExistsError, Problem, StorageError
from batchonnx.ledger.lease import busy, holder_of
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.process import is_alive, is_dead, this_process

LEASE = "_batchonnx/lease.json"
BEAT_S = 4.0
WATCH_S = 6 * BEAT_S
"""A holder elsewhere whose count stands still for so long is taken for dead."""

SURE_S = 3 * BEAT_S
"""For so long after a beat its holder needs no proof: nobody can have watched it for WATCH_S."""

LOOK_S = 1.0


_held_here: set[object] = set()
"""Holders of this process: a lease of another one is what it couldn't give back."""


class ObjectLease:
    """As a context: the one who writes this folder.

    on_lost: called, from another thread, if somebody else has taken the lease over. token: the lease's
    number, while it is held. Raises OutputBusyError naming who holds it, StorageError.
    """

    def __init__(self, folder: ObjectFolder, on_lost: Callable[[], None]) -> None:
        self._folder, self._on_lost = folder, on_lost
        self.token = 0
        self._record: dict[str, object] = {}
        self._etag = ""
        self._beaten = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beating.join()
        _held_here.discard(self._record["holder"])
        with self._lock:
            free = {**self._record, "holder": None, "mark": secrets.token_hex(8)}
            try:
                is_lost = self._folder.swap(LEASE, _bytes(free), self._etag) is None
                lost = self._lost() if is_lost and isinstance(error, _BY_LOSS) else None
            except StorageError:
                if kind is None:
                    raise
                return  # the first error is the one to tell; this one's process can be looked for
        if lost is not None:
            raise lost from error

    def prove(self) -> None:
        """Make sure that nobody has taken the lease over. Raises OutputBusyError, StorageError."""
        with self._lock:
            if not self._renew():
                raise self._lost()

    def confirm(self) -> None:
        """As `prove`, without asking the store if a beat was not long ago."""
        if _now() - self._beaten > SURE_S:
            self.prove()

    def _lost(self) -> OutputBusyError:
        found = self._folder.get(LEASE)
        record = _record(found[0]) if found is not None else {}
        facts = {"lease": self._folder.url_of(LEASE)}
        if record:
            facts["taken by"] = holder_of(record)
        fix = "run the same command again: it finds the other's result, or goes on where that one stops"
        return OutputBusyError(Problem("another run has taken this output over", facts, fix))

    def _take(self) -> None:
        seen, since = "", _now()
        while True:
            found = self._folder.get(LEASE)
            if found is None:
                if self._write(1, None):
                    return
                continue
            record = _record(found[0])
            is_free = record.get("holder") is None or is_dead(record) or _is_left(record)
            if is_free or _elapsed(since, seen == found[1]) > WATCH_S:
                if self._write(int(record.get("token", 0)) + 1, found[1]):
                    return
                seen = ""
                continue
            if is_alive(record) or (seen and seen != found[1]):
                raise busy(self._folder.url_of(LEASE), record)
            if not seen:
                seen, since = found[1], _now()
            time.sleep(LOOK_S)

    def _write(self, token: int, etag: str | None) -> bool:
        """Become the holder, in place of the lease of that etag, or of none."""
        asked_at = _now()
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"holder": secrets.token_hex(8), "token": token, **this_process(), "since": since, "beat": 0}
        # Before it is written: another thread may read it at once, and would take it for left over.
        _held_here.add(record["holder"])
        written: str | None = None
        try:
            written = self._put(record, etag)
        finally:
            if written is None:
                _held_here.discard(record["holder"])
        if written is None:
            return False
        self._record, self._etag, self.token, self._beaten = record, written, token, asked_at
        return True

    def _put(self, record: dict[str, Any], etag: str | None) -> str | None:
        """The lease's etag once it is written; None if another one is there."""
        if etag is None:
            return self._folder.create(LEASE, _bytes(record))
        return self._folder.swap(LEASE, _bytes(record), etag)

    def _renew(self) -> bool:
        asked_at = _now()
        record = {**self._record, "beat": int(str(self._record["beat"])) + 1}
        etag = self._folder.swap(LEASE, _bytes(record), self._etag)
        if etag is None:
            return False
        self._record, self._etag, self._beaten = record, etag, asked_at
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                with self._lock:
                    is_ours = self._renew()
            except StorageError:
                continue  # a store that is away for a moment costs a beat, not the run
            if not is_ours:
                self._on_lost()
                return


_BY_LOSS = (Interrupted, StorageError, OutputExistsError)
"""How a run may end because another one has its output."""


def _is_left(record: Mapping[str, object]) -> bool:
    """Whether a lease is this process's, which wasn't able to give it back: the store was away."""
    return this_process().items() <= record.items() and record.get("holder") not in _held_here


def _now() -> float:
    """A clock that also goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _elapsed(since: float, is_same: bool) -> float:
    return _now() - since if is_same else 0.0


def _record(data: bytes) -> dict[str, Any]:
    """A lease as it was written; something else is nobody's."""
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _bytes(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode()
