"""The seam to a table, whatever its kind: what it is read as, and what a run's parts are added to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from batchonnx.errors import ContractError, DependencyError, Problem
from batchonnx.job.spec import JobFile


@dataclass(frozen=True)
class LiveFile:
    """A data file of a table. path: absolute, or a URL. partition: values of columns that it may lack."""

    path: str
    size: int
    partition: Mapping[str, object]


@dataclass(frozen=True)
class Snapshot:
    """What a table held at a version.

    version: Delta's, or Iceberg's snapshot id. partitions: columns whose values stand in the table's
    records, not in its files. names: field id -> column's name; empty where files are read by name.
    """

    version: int
    files: tuple[LiveFile, ...]
    partitions: tuple[pa.Field, ...] = ()
    names: Mapping[int, str] | None = None


@dataclass(frozen=True)
class NewFile:
    """A Parquet file to be added. path: absolute, or a URL."""

    path: str
    size: int
    metadata: pq.FileMetaData


Columns = Mapping[str, pa.Field | None]
"""Column of a result -> its field; None where only a first batch tells its type."""


class Sink(Protocol):
    """A table that results are added to. Every method raises StorageError where the store refuses.

    where: for messages.
    """

    where: str

    def check(self, columns: Columns) -> None:
        """Refuse, by ContractError, a result that doesn't fit into the table as it is now, if it is there."""
        ...

    def find(self, run: str, *, overwrite: bool) -> int | None:
        """The version in which a run's files were added; None if they weren't.

        overwrite: None, too, if they have been replaced since.
        """
        ...

    def add(self, run: str, schema: pa.Schema, files: Sequence[NewFile], *, overwrite: bool) -> int | None:
        """Add a run's files in one commit, unless that has been done: the version that has them.

        Makes the table if there is none; without any file it is left unmade, and there is no version.
        overwrite: removes, in the same commit, whatever else it holds.
        """
        ...


def read_snapshot(job: JobFile) -> Snapshot:
    """What the table of a job's input holds: at the version that the job names, else at the newest.

    Raises InputError, DependencyError, StorageError.
    """
    wanted = job.job.input
    if wanted.format == "delta":
        from batchonnx.tables.delta import read_delta

        assert isinstance(wanted.path, str), "the job was checked"
        return read_delta(job.resolve(wanted.path), wanted.version)
    from batchonnx.tables.iceberg import read_iceberg

    assert wanted.table is not None, "the job was checked"
    return read_iceberg(wanted.table, wanted.version)


def open_sink(job: JobFile) -> Sink | None:
    """The table that a job's result is added to; None where the result is a folder of files."""
    wanted = job.job.output
    if wanted.format == "delta":
        from batchonnx.tables.delta import DeltaSink

        return DeltaSink(job.resolve(wanted.path).rstrip("/"))
    if wanted.format == "iceberg":
        from batchonnx.tables.iceberg import IcebergSink

        assert wanted.table is not None, "the job was checked"
        return IcebergSink(wanted.table)
    return None


def missing_package(kind: str, error: ImportError) -> DependencyError:
    """kind: delta or iceberg."""
    facts = {"found": str(error)}
    return DependencyError(
        Problem(f"{kind} tables need a package", facts, f"pip install 'batchonnx[{kind}]'")
    )


def check_columns(where: str, columns: Columns, found: pa.Schema, *, has_short_ints: bool) -> None:
    """Refuse, by ContractError with all differences, columns that aren't the table's own.

    found: the table's. has_short_ints: whether the table tells int8 and int16 from int32.
    """
    problems = list(_differences(where, columns, found, has_short_ints))
    if problems:
        raise ContractError(*problems)


def _differences(where: str, columns: Columns, found: pa.Schema, has_short_ints: bool) -> Iterator[Problem]:
    for name in found.names:
        if name not in columns:
            facts = {"table": where, "column": name, "expected": str(found.field(name).type)}
            fix = f"predict or keep a column {name}, or drop it from the table"
            yield Problem(f'the table has a column "{name}", the result has not', facts, fix)
    for name, field in columns.items():
        if name not in found.names:
            facts = {"table": where, "column": name, "found": str(field.type) if field else "untold yet"}
            fix = "add the column to the table, or leave it out of outputs or keep"
            yield Problem(f'the table has no column "{name}"', facts, fix)
            continue
        theirs = found.field(name)
        if field is None:
            continue
        expected, ours = (plain_type(one.type, has_short_ints) for one in (theirs, field))
        if expected != ours:
            facts = {"table": where, "column": name, "expected": str(expected), "found": str(field.type)}
            fix = "change the output's type (python: module:function), or the table's"
            yield Problem(f'column "{name}" has another type in the table', facts, fix)
        elif field.nullable and not theirs.nullable:
            facts = {"table": where, "column": name, "expected": "no nulls"}
            fix = "allow nulls in the table's column"
            yield Problem(f'column "{name}" may be null, in the table it may not', facts, fix)


def require_storable(kind: str, where: str, columns: Columns) -> None:
    """Refuse, by ContractError, columns of types that a Delta or Iceberg table has no place for."""
    problems = []
    for name, field in columns.items():
        if field is not None and (misfit := next(_misfits(kind, field.type), None)) is not None:
            facts = {"table": where, "column": name, "found": str(field.type)}
            fix = f"cast it: for an output by python: module:function; or leave {name} out"
            title = f'column "{name}" is {misfit}, which {kind.capitalize()} tables don\'t have'
            problems.append(Problem(title, facts, fix))
    if problems:
        raise ContractError(*problems)


def _misfits(kind: str, value: pa.DataType) -> Iterator[pa.DataType]:
    """Types within a type that a table can't hold as they lie in the Parquet file."""
    if isinstance(value, pa.BaseExtensionType):
        yield from [value] if kind == "iceberg" else _misfits(kind, value.storage_type)
    elif pat.is_dictionary(value):
        yield from _misfits(kind, value.value_type)
    elif pat.is_nested(value):
        for place in range(value.num_fields):
            yield from _misfits(kind, value.field(place).type)
    elif (
        pat.is_unsigned_integer(value)
        or pat.is_float16(value)
        or pat.is_null(value)
        or pat.is_duration(value)
        or pat.is_interval(value)
        or pat.is_decimal256(value)
        or (pat.is_timestamp(value) and value.unit == "ns")
        or (pat.is_time(value) and (kind == "delta" or value != pa.time64("us")))
        or (pat.is_date64(value) and kind == "iceberg")
    ):
        yield value


def plain_type(value: pa.DataType, has_short_ints: bool = True) -> pa.DataType:
    """A type without what only Arrow tells apart: views, dictionaries, sizes, units, names of items."""
    if isinstance(value, pa.BaseExtensionType):
        return plain_type(value.storage_type, has_short_ints)
    if pat.is_dictionary(value):
        return plain_type(value.value_type, has_short_ints)
    if pat.is_map(value):
        key, item = (plain_type(one, has_short_ints) for one in (value.key_type, value.item_type))
        return pa.map_(key, item)
    if pat.is_struct(value):
        return pa.struct([(one.name, plain_type(one.type, has_short_ints)) for one in value])
    if pat.is_nested(value):
        return pa.list_(plain_type(value.value_type, has_short_ints))
    if pat.is_string(value) or pat.is_large_string(value) or pat.is_string_view(value):
        return pa.string()
    if pat.is_binary(value) or pat.is_large_binary(value) or pat.is_binary_view(value):
        return pa.binary()
    if pat.is_fixed_size_binary(value):
        return pa.binary()
    if pat.is_timestamp(value):
        return pa.timestamp("us", "UTC" if value.tz else None)
    if pat.is_date64(value):
        return pa.date32()
    if not has_short_ints and pat.is_signed_integer(value) and value.bit_width < 32:
        return pa.int32()
    return value


def plain_schema(schema: pa.Schema, *, has_short_ints: bool = True) -> pa.Schema:
    """The schema of a new table for such files: nothing in it may not be null."""
    return pa.schema([(field.name, plain_type(field.type, has_short_ints)) for field in schema])
