"""Ticks that the overlap policy has given up: small records beside the outputs.

Everything else is told by what is published. A tick that was skipped or replaced isn't published either, so
that it has to be written down that it isn't missed; `backfill` scores it all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.durable import create_file, replace_file
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.schedule.calendar import Tick
from batchonnx.schedule.scheduled import Scheduled

RUNNING = "running.json"


class Records:
    """The folder `_schedule-NAME` below a schedule's outputs. Every method raises StorageError."""

    def __init__(self, scheduled: Scheduled) -> None:
        self.where = f"{scheduled.root}/_schedule-{scheduled.name}"
        self._store = ObjectFolder(self.where) if "://" in self.where else None

    def give_up(self, tick: Tick, why: str) -> None:
        """Never count this tick as missed. why: skipped or replaced."""
        record = {"date": tick.date, "at": tick.at.isoformat(), "why": why}
        self._create(_name(tick), json.dumps(record).encode())

    def is_given_up(self, tick: Tick) -> bool:
        """Whether the policy has given a tick up."""
        return self._read(_name(tick)) is not None

    def start(self, tick: Tick) -> None:
        """Tell others which tick is running; the lease is held."""
        data = json.dumps({"date": tick.date, "at": tick.at.isoformat()}).encode()
        if self._store is not None:
            self._store.put(RUNNING, data)
            return
        path = self._folder() / RUNNING
        try:
            replace_file(path, data)
        except OSError as error:
            raise disk_error(error, path) from error

    def running(self) -> str | None:
        """The date of the tick that was started last."""
        data = self._read(RUNNING)
        record: Mapping[str, str] = json.loads(data) if data is not None else {}
        return record.get("date")

    def _create(self, name: str, data: bytes) -> None:
        if self._store is not None:
            self._store.create(name, data)
            return
        path = self._folder() / name
        try:
            create_file(path, data)
        except OSError as error:
            raise disk_error(error, path) from error

    def _read(self, name: str) -> bytes | None:
        if self._store is not None:
            found = self._store.get(name)
            return found[0] if found is not None else None
        path = Path(self.where, name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error, path) from error

    def _folder(self) -> Path:
        folder = Path(self.where)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        return folder


def _name(tick: Tick) -> str:
    return f"given-up-{quote(tick.date, safe='')}.json"
