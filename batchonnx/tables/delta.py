"""Delta tables: the log says which files count; a commit is the next object of it, created once.

A run's files are added under a transaction identifier, which the log keeps for good: a commit that is
repeated, by whom ever, finds it there. Its version is the table's version that has them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.types as pat

from batchonnx.errors import (
    BatchonnxError,
    ContractError,
    InputError,
    OutputExistsError,
    Problem,
    StorageError,
)
from batchonnx.storage.settings import current_settings
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
    from deltalake import CommitProperties, DeltaTable, Schema, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
    from deltalake.transaction import AddAction, create_table_with_add_actions
except ImportError as error:
    raise missing_package("delta", error) from error

TRIES = 20
LONGEST_TEXT = 256
"""Of a text that is given as a file's smallest or largest value."""

WRITER_FEATURES = {
    "appendOnly",
    "invariants",
    "checkConstraints",
    "generatedColumns",
    "changeDataFeed",
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
"""What a table may ask of its writers: needs nothing for files that are only added, or is checked."""


def read_delta(path: str, version: int | None) -> Snapshot:
    """A table's live files. path: absolute, or a URL. version: None for the newest.

    Raises InputError for what isn't there, or can't be read file by file.
    """
    table = _open(path, version, InputError)
    if table is None:
        facts = {"path": path, "found": "no Delta log"}
        raise InputError(
            Problem("the input isn't a Delta table", facts, "correct input.path or input.format")
        )
    with _told(path, InputError):
        _require_plain_files(table, path)
        actions = pa.table(table.get_add_actions())
        schema = pa.schema(table.schema().to_arrow())
        keys = table.metadata().partition_columns
    values = actions.column("partition").to_pylist() if keys else [{}] * actions.num_rows
    files = tuple(
        LiveFile(_absolute(path, name), size, partition)
        for name, size, partition in zip(
            actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), values, strict=True
        )
    )
    return Snapshot(table.version(), files, tuple(schema.field(key).remove_metadata() for key in keys))


class DeltaSink:
    """A table at a path; see `table.Sink`."""

    def __init__(self, path: str) -> None:
        self.where = path

    def check(self, columns: Columns) -> None:
        """Against the table's schema, and what it asks of its writers."""
        require_storable("delta", self.where, columns)
        table = _open(self.where, None, StorageError)
        if table is None:
            return
        self._require_writable(table)
        check_columns(self.where, columns, pa.schema(table.schema().to_arrow()), has_short_ints=True)

    def find(self, run: str, *, overwrite: bool) -> int | None:
        """By the transaction identifiers in the log."""
        table = _open(self.where, None, StorageError)
        return self._find(table, run, overwrite) if table is not None else None

    def add(self, run: str, schema: pa.Schema, files: Sequence[NewFile], *, overwrite: bool) -> int | None:
        """By optimistic commits: whoever finds another's in its place looks again, and tries the next."""
        actions = [_add_action(self.where, file) for file in files]
        for tried in range(TRIES):
            table = _open(self.where, None, StorageError)
            done = self._find(table, run, overwrite) if table is not None else None
            if done is not None:
                return done
            if table is None and not files:
                return None
            if table is not None:
                self._require_writable(table)
                self._require_absent(table, run, overwrite)
            version = table.version() + 1 if table is not None else 0
            try:
                self._commit(table, run, schema, actions, version, overwrite)
                return version
            except (CommitFailedError, _Made):
                time.sleep(random.uniform(0, min(2.0, 0.02 * 2**tried)))
        facts = {"table": self.where, "found": f"{TRIES} commits of others, one after the other"}
        raise StorageError(
            Problem("the table is too busy", facts, "run the same command again: it adds the rows")
        )

    def _find(self, table: DeltaTable, run: str, overwrite: bool) -> int | None:
        with _told(self.where, StorageError):
            replaced = table.transaction_version(_application(run, True))
            if not overwrite:
                added = table.transaction_version(_application(run, False))
                return added if added is not None else replaced
            return replaced if replaced is not None and _holds(table, run) else None

    def _commit(
        self,
        table: DeltaTable | None,
        run: str,
        schema: pa.Schema,
        actions: list[AddAction],
        version: int,
        overwrite: bool,
    ) -> None:
        properties = CommitProperties(
            custom_metadata={"batchonnx.run": run},
            max_commit_retries=0,
            app_transactions=[Transaction(_application(run, overwrite), version)],
        )
        with _told(self.where, StorageError):
            delta_schema = Schema.from_arrow(plain_schema(schema)) if table is None else table.schema()
            if table is not None:
                mode = "overwrite" if overwrite else "append"
                table.create_write_transaction([*actions], mode, delta_schema, commit_properties=properties)
                return
            create_table_with_add_actions(
                self.where,
                delta_schema,
                actions,
                mode="error",
                storage_options=_storage_options(self.where),
                commit_properties=properties,
            )

    def _require_writable(self, table: DeltaTable) -> None:
        with _told(self.where, StorageError):
            metadata, protocol = table.metadata(), table.protocol()
            fields = json.loads(table.schema().to_json())["fields"]
        asked = [key for key in metadata.configuration if key.startswith("delta.constraints.")]
        asked += [
            f"{key} of {field['name']}"
            for field in fields
            for key in field["metadata"]
            if key.startswith(("delta.invariants", "delta.generationExpression", "delta.identity"))
        ]
        asked += sorted({*(protocol.writer_features or ())} - WRITER_FEATURES)
        facts = {"table": self.where}
        if metadata.partition_columns:
            facts["found"] = f"partitioned by {', '.join(metadata.partition_columns)}"
            fix = "name a table without partitions"
            raise ContractError(Problem("a partitioned table can't be added to yet", facts, fix))
        if _column_mapping(table) != "none":
            facts["found"] = f"delta.columnMapping.mode: {_column_mapping(table)}"
            fix = "name a table without column mapping"
            raise ContractError(Problem("a table with column mapping can't be added to", facts, fix))
        if asked:
            facts["found"] = ", ".join(asked)
            fix = "drop that from the table, or name another one"
            raise ContractError(Problem("the table asks of its writers what isn't checked here", facts, fix))

    def _require_absent(self, table: DeltaTable, run: str, overwrite: bool) -> None:
        """No file may be added and removed in one commit."""
        if overwrite and _holds(table, run):
            facts = {"table": self.where, "found": f"rows of this run, which were appended, below {run}/"}
            fix = "delete the other rows in the table, or run without overwrite"
            raise OutputExistsError(Problem("the table has this run's rows already", facts, fix))


class _Made(Exception):
    """Somebody else has made the table meanwhile."""


def _open(path: str, version: int | None, kind: type[BatchonnxError]) -> DeltaTable | None:
    """None if there is no table."""
    try:
        with _told(path, kind):
            return DeltaTable(path, version=version, storage_options=_storage_options(path))
    except TableNotFoundError:
        return None


@contextmanager
def _told(path: str, kind: type[BatchonnxError]) -> Iterator[None]:
    """What deltalake raises as errors for the user, but for what its caller looks for."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError, ValueError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0][:300]
        if "already exists at that location" in found:
            raise _Made from error
        fix = (
            "check the path, the version and the credentials; the same command goes on where this one stopped"
        )
        raise kind(Problem("the Delta table can't be used", {"table": path, "found": found}, fix)) from error


def _application(run: str, overwrite: bool) -> str:
    return f"batchonnx{'-overwrite' if overwrite else ''}:{run}"


def _holds(table: DeltaTable, run: str) -> bool:
    """Whether a live file lies in the run's folder."""
    return any(f"/{run}/" in uri for uri in table.file_uris())


def _absolute(root: str, name: str) -> str:
    """A file's path or URL. name: as the log has it, percent-encoded; relative, but for shallow clones."""
    decoded = unquote(name)
    if "://" in decoded:
        return decoded.removeprefix("file://")
    return f"{root.rstrip('/')}/{decoded}"


def _column_mapping(table: DeltaTable) -> str:
    return str(table.metadata().configuration.get("delta.columnMapping.mode", "none"))


def _require_plain_files(table: DeltaTable, path: str) -> None:
    """Rows are read from the files as they are: nothing beside them may say otherwise."""
    version = f"version {table.version()}"
    if (mode := _column_mapping(table)) != "none":
        facts = {"table": path, "found": f"{version}, delta.columnMapping.mode: {mode}"}
        fix = "write the table again without column mapping, or score a copy of it"
        raise InputError(Problem("a table with column mapping can't be read", facts, fix))
    marked = next((batch for batch in table.deletion_vectors() if batch.num_rows), None)
    if marked is not None:
        file = str(pa.record_batch(marked).column(0)[0].as_py())
        facts = {"table": path, "found": f"{version}, a deletion vector beside {file}"}
        fix = "have the deleted rows rewritten: REORG TABLE … APPLY (PURGE), or OPTIMIZE; then run again"
        raise InputError(Problem("the table has deletion vectors", facts, fix))


def _storage_options(path: str) -> dict[str, str] | None:
    """As the job's `storage:` and the standard chains say; asked anew each time, since credentials expire.

    A commit is a conditional write, so no lock is needed beside the store.
    """
    if not path.startswith("s3://"):
        return None
    from batchonnx.storage.s3 import s3_client, split_url

    access = s3_client().requests.access()
    options: dict[str, str | None] = {
        "aws_region": access.region,
        "aws_access_key_id": access.key,
        "aws_secret_access_key": access.secret,
        "aws_session_token": access.token,
        "aws_conditional_put": "etag",
        "aws_endpoint": access.endpoint,
    }
    if access.endpoint is not None:
        options["aws_allow_http"] = "true" if access.endpoint.startswith("http://") else None
        if current_settings().path_style is False:
            scheme, _, host = access.endpoint.partition("://")
            options["aws_endpoint"] = f"{scheme}://{split_url(path)[0]}.{host}"
            options["aws_virtual_hosted_style_request"] = "true"
    return {key: value for key, value in options.items() if value is not None}


def _add_action(root: str, file: NewFile) -> AddAction:
    name = quote(file.path.removeprefix(f"{root}/"))
    return AddAction(name, file.size, {}, int(time.time() * 1000), True, json.dumps(_statistics(file)))


def _statistics(file: NewFile) -> Mapping[str, Any]:
    """Rows, nulls, smallest and largest values, as the footer tells; only what is sure.

    Not of floats: a footer leaves out NaN, which to a reader is larger than every number.
    """
    metadata = file.metadata
    schema = metadata.schema.to_arrow_schema()
    nulls: dict[str, int] = {}
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    places = {groups[0].column(n).path_in_schema: n for n in range(groups[0].num_columns)} if groups else {}
    for field in schema:
        if field.name not in places or pat.is_nested(field.type):
            continue
        found = [group.column(places[field.name]).statistics for group in groups]
        if any(one is None or not one.has_null_count for one in found):
            continue
        nulls[field.name] = sum(one.null_count for one in found)
        is_ordered = pat.is_integer(field.type) or pat.is_date(field.type) or pat.is_string(field.type)
        bounded = [one for one in found if one.num_values]
        if not is_ordered or not bounded or not all(one.has_min_max for one in bounded):
            continue
        low, high = min(one.min for one in bounded), max(one.max for one in bounded)
        if not isinstance(high, str) or max(len(low), len(high)) <= LONGEST_TEXT:
            least[field.name], most[field.name] = _json(low), _json(high)
    return {"numRecords": metadata.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}


def _json(value: Any) -> Any:
    return value if isinstance(value, int | str) else value.isoformat()
