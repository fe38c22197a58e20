"""Scoring into a run of a bucket: what a worker, in this process or another, does to the run's objects."""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from batchonnx.errors import OutputBusyError, Problem
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.output import Scoring, Staged
from batchonnx.ledger.records import Commit, StoredFile, files_of, from_bytes, to_bytes
from batchonnx.ledger.upload import ObjectStaged, OpenUpload, UploadStaged
from batchonnx.parts.layout import stem_of

RECORDS = "_batchonnx"


class Lease(Protocol):
    """What a run needs of the lease that it is written under."""

    token: int

    def prove(self) -> None:
        """Raise unless it is still held."""
        ...

    def confirm(self) -> None:
        """Raise if it may not be held any more; costs nothing as a rule."""
        ...


def records_of(run: str) -> str:
    """The prefix of a run's records."""
    return f"{RECORDS}/runs/{run}/"


class Fence:
    """What a worker in another process has of its driver's lease; see `Lease`.

    The token is in all that it writes, by which the holder of a later one undoes it. That the lease is
    held is the driver's to prove, which ends its workers when it isn't.
    """

    def __init__(self, token: int) -> None:
        self.token = token

    def prove(self) -> None:
        """Called when a record of a later holder was found: raises OutputBusyError."""
        fix = "nothing: the run that has taken over has workers of its own"
        facts = {"process": str(os.getpid()), "token": str(self.token)}
        raise OutputBusyError(Problem("another run has taken this worker's output over", facts, fix))

    def confirm(self) -> None:
        """Nothing."""


class ObjectScoring:
    """A run's objects, for those who score; see `output.Scoring`."""

    def __init__(
        self, folder: ObjectFolder, run: str, lease: Lease, suspects: Container[int], *, keeps_measured: bool
    ) -> None:
        self._folder, self._lease, self._suspects = folder, lease, suspects
        self._records = records_of(run)
        self.where, self.keeps_measured = folder.url_of(self._records), keeps_measured
        self._begun: dict[str, OpenUpload] = {}
        self._lock = threading.Lock()

    @property
    def suspects(self) -> Container[int]:
        """As given."""
        return self._suspects

    def start(self, shard: int, part: str) -> None:
        """The part's upload is begun: one that is open without a commit is the mark of a death."""
        self._lease.confirm()
        with self._lock:
            if part in self._begun:
                return  # by a worker whose device was lost before anything was written
        upload = OpenUpload(self._folder, part)
        with self._lock:
            self._begun[part] = upload

    def end(self) -> None:
        """Uploads that nothing was written to are given up."""
        with self._lock:
            begun, self._begun = list(self._begun.values()), {}
        for upload in begun:
            upload.abort()

    def stage(self, attempt: str, kind: str, path: str) -> Staged:
        """An upload; the gate's columns are an object, which is never published."""
        if kind == "measured":
            return ObjectStaged(self._folder, measured_name(self._records, attempt))
        with self._lock:
            begun = self._begun.pop(path, None)
        return UploadStaged(begun or OpenUpload(self._folder, path))

    def commit(self, record: Commit) -> Commit:
        """By an object that is created once.

        One of a former holder of the lease, that came when this life had looked for commits, doesn't count:
        its uploads may have been given up.
        """
        self._lease.confirm()
        record = replace(record, token=self._lease.token)
        with self._lock:
            begun = self._begun.pop(record.part, None)
        if begun is not None:
            begun.abort()  # its files have other names: it was but the mark that the shard is being scored
        name = commit_name(self._records, record.part)
        if self._folder.create(name, to_bytes(record)):
            return record
        found = self._folder.get(name)
        other = from_bytes(found[0], Commit, self._folder.url_of(name)) if found is not None else None
        if found is None or other is None or other.token > record.token:
            abort(self._folder, files_of(record))
            self._lease.prove()
            raise AssertionError(f"{name} is another's, although the lease is held")
        if other.token == record.token:
            abort(self._folder, files_of(record))
            return other
        if self._folder.swap(name, to_bytes(record), found[1]) is None:
            # Another worker of this life was faster.
            return self.commit(record)
        abort(self._folder, files_of(other))
        return record


@dataclass(frozen=True)
class ObjectTicket:
    """See `output.Ticket`. token: of the driver's lease."""

    url: str
    run: str
    token: int
    keeps_measured: bool

    def enter(self, suspects: Container[int]) -> Scoring:
        """With the driver's token."""
        folder, fence = ObjectFolder(self.url), Fence(self.token)
        return ObjectScoring(folder, self.run, fence, suspects, keeps_measured=self.keeps_measured)


def abort(folder: ObjectFolder, files: Iterable[StoredFile]) -> None:
    """Give up the uploads of files that won't count."""
    folder.abort((stored.path, stored.upload.id) for stored in files if stored.upload is not None)


def measured_name(prefix: str, attempt: str) -> str:
    """The name of the gate's columns of an attempt."""
    return f"{prefix}measured/{attempt}.parquet"


def commit_name(prefix: str, part: str) -> str:
    """The name of a shard's commit."""
    return f"{prefix}commits/{stem_of(part)}.json"
