"""Footers that were read before, kept for this user: the next plan of the same files reads none.

One SQLite file in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache). Nothing depends on it:
without it, or when it can't be opened, footers are read from the files.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import pyarrow as pa

from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.user_cache import cache_folder

FORMAT_VERSION = 1
MOST_FOOTERS = 300_000
"""Some 100 MB; the oldest go first."""
SETTLED_S = 2
"""A file that changed a moment ago may change again and keep its mtime."""
BUSY_S = 1.0
_TABLES = """
CREATE TABLE IF NOT EXISTS schemas (digest TEXT PRIMARY KEY, schema BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS footers (
  path TEXT UNIQUE, size INT, version TEXT, digest TEXT, row_groups TEXT, nulls TEXT
);
"""


def find_footers(entries: Iterable[FileEntry]) -> dict[str, Footer]:
    """Path -> footer of the files that are known as they are now."""
    with _trouble_ignored(), closing(_open()) as database:
        return dict(_find(database, entries))
    return {}


def keep_footers(footers: Iterable[tuple[FileEntry, Footer]]) -> None:
    """Remember the footers of files that have a version, and have had it for a while."""
    latest = (time.time() - SETTLED_S) * 1e9
    digests: dict[int, str] = {}
    with _trouble_ignored(), closing(_open()) as database, database:
        for entry, footer in footers:
            is_mtime = "://" not in entry.path and entry.version.isdecimal()
            if not entry.version or (is_mtime and int(entry.version) > latest):
                continue
            digest = digests.get(id(footer.schema))
            if digest is None:
                stored = footer.schema.serialize().to_pybytes()
                digest = digests[id(footer.schema)] = hashlib.sha256(stored).hexdigest()
                database.execute("INSERT OR IGNORE INTO schemas VALUES (?, ?)", (digest, stored))
            groups = json.dumps([(group.rows, group.bytes) for group in footer.row_groups])
            row = (entry.path, entry.size, entry.version, digest, groups, json.dumps(dict(footer.nulls)))
            database.execute("INSERT OR REPLACE INTO footers VALUES (?, ?, ?, ?, ?, ?)", row)
        last = "(SELECT max(rowid) FROM footers)"
        database.execute(f"DELETE FROM footers WHERE rowid <= {last} - ?", (MOST_FOOTERS,))


def _find(database: sqlite3.Connection, entries: Iterable[FileEntry]) -> Iterator[tuple[str, Footer]]:
    @cache
    def schema(digest: str) -> pa.Schema:
        (stored,) = database.execute("SELECT schema FROM schemas WHERE digest = ?", (digest,)).fetchone()
        return pa.ipc.read_schema(pa.BufferReader(stored))

    query = "SELECT size, version, digest, row_groups, nulls FROM footers WHERE path = ?"
    for entry in entries:
        row = database.execute(query, (entry.path,)).fetchone()
        if row is not None and row[:2] == (entry.size, entry.version):
            groups = tuple(RowGroup(rows, size) for rows, size in json.loads(row[3]))
            yield entry.path, Footer(schema(row[2]), groups, json.loads(row[4]))


def _path() -> Path:
    return cache_folder() / f"footers-{FORMAT_VERSION}.sqlite"


def _open() -> sqlite3.Connection:
    _path().parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(_path(), timeout=BUSY_S)
    database.executescript(_TABLES)
    return database


@contextmanager
def _trouble_ignored() -> Iterator[None]:
    """A cache that is busy or can't be written is done without; a damaged one is removed."""
    try:
        yield
    except (sqlite3.OperationalError, OSError, RuntimeError):  # RuntimeError: there is no home
        return
    except (sqlite3.DatabaseError, pa.ArrowException, ValueError, TypeError):
        _path().unlink(missing_ok=True)
