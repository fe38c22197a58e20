"""Iceberg tables: the catalog says which snapshot counts; a commit is one swap of it.

A run's files are added in a snapshot whose summary names the run: a commit that is repeated, by whom
ever, finds it among the ancestors of the current one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa

from batchonnx.errors import BatchonnxError, ContractError, InputError, Problem, StorageError
from batchonnx.job.spec import Table as TableName
from batchonnx.tables.table import (
    Columns,
    LiveFile,
    NewFile,
    Snapshot,
    check_columns,
    missing_package,
    plain_schema,
    require_storable,
)

try:
    from pyiceberg import exceptions
    from pyiceberg.catalog import Catalog, load_catalog
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.manifest import FileFormat
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot as TableSnapshot
    from pyiceberg.utils.config import Config
except ImportError as error:
    raise missing_package("iceberg", error) from error

try:
    from sqlalchemy.exc import SQLAlchemyError
except ImportError:  # there only with catalogs that need it
    SQLAlchemyError = OSError  # type: ignore[misc, assignment]

TRIES = 20
RUN, OVERWRITE = "batchonnx.run", "batchonnx.overwrite"
"""In a snapshot's summary: the run whose files it adds; whether they replace all others."""

_CONFLICTS = (
    exceptions.CommitFailedException,
    exceptions.TableAlreadyExistsError,
    getattr(exceptions, "ValidationException", exceptions.CommitFailedException),
)
_TROUBLE = (
    *(kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    OSError,
    ValueError,
    pa.ArrowException,
    SQLAlchemyError,
)
"""What the world may be blamed for."""


def read_iceberg(name: TableName, version: int | None) -> Snapshot:
    """A table's live files. version: a snapshot's id; None for the current one.

    Raises InputError for what isn't there, or can't be read file by file.
    """
    table = _load(_open_catalog(name, InputError), name, InputError)
    if table is None:
        facts = {"table": _told_name(name), "found": "no such table in the catalog"}
        raise InputError(Problem("the input isn't there", facts, "correct input.table"))
    found = table.current_snapshot() if version is None else table.snapshot_by_id(version)
    if found is None and version is not None:
        facts = {"table": _told_name(name), "expected": f"snapshot {version}"}
        fix = "name one that the table still has; expired snapshots can't be read"
        raise InputError(Problem("the table has no such snapshot", facts, fix))
    if found is None:
        return Snapshot(0, ())
    with _told(name, InputError):
        is_current = found.snapshot_id == table.metadata.current_snapshot_id
        # The current rows have the current names; a snapshot of the past has those of its time.
        scan = table.scan(snapshot_id=None if is_current else found.snapshot_id)
        tasks = list(scan.plan_files())
        names = {field.field_id: field.name for field in scan.projection().fields}
    deleted = next((task for task in tasks if task.delete_files), None)
    if deleted is not None:
        facts = {"table": _told_name(name), "found": f"a delete file beside {deleted.file.file_path}"}
        fix = (
            "have the deleted rows rewritten: rewrite_data_files with delete-file-threshold 1; then run again"
        )
        raise InputError(Problem("the table has delete files", facts, fix))
    other = next((task for task in tasks if task.file.file_format != FileFormat.PARQUET), None)
    if other is not None:
        facts = {"table": _told_name(name), "file": other.file.file_path, "expected": "Parquet"}
        raise InputError(Problem("the table has files of another format", facts, "rewrite them as Parquet"))
    files = tuple(
        LiveFile(_plain_path(task.file.file_path), task.file.file_size_in_bytes, {}) for task in tasks
    )
    return Snapshot(found.snapshot_id, files, (), names)


class IcebergSink:
    """A table of a catalog; see `table.Sink`."""

    def __init__(self, name: TableName) -> None:
        self.where, self._name = _told_name(name), name

    def check(self, columns: Columns) -> None:
        """Against the table's current schema."""
        require_storable("iceberg", self.where, columns)
        table = self._load()
        if table is not None:
            self._require_writable(table)
            check_columns(self.where, columns, table.schema().as_arrow(), has_short_ints=False)

    def find(self, run: str, *, overwrite: bool) -> int | None:
        """By the summaries of the snapshots that have led to the current one."""
        table = self._load()
        return _find(table, run, overwrite) if table is not None else None

    def add(self, run: str, schema: pa.Schema, files: Sequence[NewFile], *, overwrite: bool) -> int | None:
        """By optimistic commits: whoever finds another's in its place looks again, and tries the next."""
        for tried in range(TRIES):
            table = self._load()
            done = _find(table, run, overwrite) if table is not None else None
            if done is not None or (table is None and not files):
                return done
            try:
                table = table or self._create(schema)
                self._require_writable(table)
                with _told(self._name, StorageError):
                    return _commit(table, run, files, overwrite)
            except _CONFLICTS:
                time.sleep(random.uniform(0, min(2.0, 0.02 * 2**tried)))
        facts = {"table": self.where, "found": f"{TRIES} commits of others, one after the other"}
        raise StorageError(
            Problem("the table is too busy", facts, "run the same command again: it adds the rows")
        )

    def _load(self) -> Table | None:
        return _load(_open_catalog(self._name, StorageError), self._name, StorageError)

    def _create(self, schema: pa.Schema) -> Table:
        catalog = _open_catalog(self._name, StorageError)
        with _told(self._name, StorageError):
            catalog.create_namespace_if_not_exists(self._name.name.rpartition(".")[0])
            return catalog.create_table(self._name.name, plain_schema(schema, has_short_ints=False))

    def _require_writable(self, table: Table) -> None:
        if not table.spec().is_unpartitioned():
            names = ", ".join(field.name for field in table.spec().fields)
            facts = {"table": self.where, "found": f"partitioned by {names}"}
            fix = "name a table without partitions"
            raise ContractError(Problem("a partitioned table can't be added to yet", facts, fix))


def _find(table: Table, run: str, overwrite: bool) -> int | None:
    for snapshot in _ancestors(table):
        summary = _summary(snapshot)
        if summary.get(RUN) == run and (not overwrite or OVERWRITE in summary):
            return snapshot.snapshot_id
        if overwrite and OVERWRITE in summary:
            return None  # another one's rows have taken their place
    return None


def _commit(table: Table, run: str, files: Sequence[NewFile], overwrite: bool) -> int:
    """One commit of the table as it was loaded, or none: a repetition has to look for the run first."""
    once = {**table.metadata.properties, "commit.retry.num-retries": "0"}
    table.metadata = table.metadata.model_copy(update={"properties": once})
    properties = {RUN: run} | ({OVERWRITE: "true"} if overwrite else {})
    with table.transaction() as transaction:
        if overwrite and table.current_snapshot() is not None:
            transaction.delete(AlwaysTrue())
        paths = [_written_path(table, file.path) for file in files]
        transaction.add_files(paths, snapshot_properties=properties, check_duplicate_files=not overwrite)
    found = _find(table, run, overwrite)
    assert found is not None, "the commit has the run's snapshot"
    return found


def _ancestors(table: Table) -> Iterator[TableSnapshot]:
    """The current snapshot, the one before it, and so on."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None


def _summary(snapshot: TableSnapshot) -> Mapping[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary is not None else {}


def _open_catalog(name: TableName, kind: type[BatchonnxError]) -> Catalog:
    """As configured; access to S3 as the job's `storage:` says, where the catalog's settings say nothing."""
    given = {key: str(value) for key, value in name.properties.items()}
    with _told(name, kind):
        configured = {**(Config().get_catalog_config(name.catalog) or {}), **given}
        has_own = any(key.startswith("s3.") for key in configured)
        return load_catalog(name.catalog, **({} if has_own else _s3_properties(configured)), **given)


def _s3_properties(configured: Mapping[str, object]) -> dict[str, str]:
    """Nothing where the catalog lies with its data on a disk."""
    if str(configured.get("warehouse", "s3:")).startswith(("file:", "/")):
        return {}
    from batchonnx.storage.s3 import s3_client

    access = s3_client().requests.access()
    told = {
        "s3.endpoint": access.endpoint,
        "s3.region": access.region,
        "s3.access-key-id": access.key,
        "s3.secret-access-key": access.secret,
        "s3.session-token": access.token,
    }
    return {key: value for key, value in told.items() if value is not None}


def _load(catalog: Catalog, name: TableName, kind: type[BatchonnxError]) -> Table | None:
    """None if the catalog has no such table."""
    with _told(name, kind):
        try:
            return catalog.load_table(name.name)
        except (exceptions.NoSuchTableError, exceptions.NoSuchNamespaceError):
            return None


@contextmanager
def _told(name: TableName, kind: type[BatchonnxError]) -> Iterator[None]:
    """What pyiceberg and its catalogs raise as errors for the user, but for what its callers look for."""
    try:
        yield
    except _CONFLICTS:
        raise
    except _TROUBLE as error:
        found = (str(error).splitlines() or [type(error).__name__])[0][:300]
        fix = "check that the catalog can be reached, and its settings; then run the same command again"
        facts = {"table": _told_name(name), "found": found}
        raise kind(Problem("the Iceberg table can't be used", facts, fix)) from error


def _told_name(name: TableName) -> str:
    return f"{name.name} of catalog {name.catalog}"


def _plain_path(location: str) -> str:
    for prefix in ("file://", "file:"):
        location = location.removeprefix(prefix)
    return location


def _written_path(table: Table, path: str) -> str:
    """As the table's own files are named: with a scheme, if they have one."""
    has_scheme = "://" in path or not table.location().startswith("file:")
    return path if has_scheme else f"file://{path}"
