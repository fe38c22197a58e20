"""The input's files with their footers, listed once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

import pyarrow as pa

from batchonnx.errors import ContractError, InputError, Problem
from batchonnx.formats.footer import Footer
from batchonnx.formats.registry import format_of
from batchonnx.planning.footers import map_files, read_footers
from batchonnx.planning.types import joinable
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import HIDDEN_FROM_TABLES, find_file, list_files, natural
from batchonnx.tables.table import Snapshot

SHOWN = 10
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class SourceFile(FileEntry):
    """One input file as the plan saw it.

    path: absolute path or URL. version: an etag, or mtime in ns; another one means another file.
    partition: column -> value, from the folders' names (None is Hive's null) or a table's records.
    """

    footer: Footer
    partition: Mapping[str, object]


@dataclass(frozen=True)
class Listing:
    """All input files in a fixed order, and the one schema that they share.

    format: parquet, arrow, csv, jsonl or files.
    schema: the files' columns, then the partition columns.
    version: of the table whose files these are; None where they were found by path.
    """

    format: str
    files: tuple[SourceFile, ...]
    schema: pa.Schema
    partition_columns: tuple[str, ...] = ()
    version: int | None = None

    @property
    def is_remote(self) -> bool:
        """Whether reading waits for a network."""
        return any("://" in file.path for file in self.files)


def list_input(paths: Sequence[str], format_name: str | None) -> Listing:
    """List files and read their footers, in parallel.

    format_name: None to tell it by the files' names. Raises InputError naming the path or file.
    """
    entries = list_files(paths, (".",) if format_name == "files" else HIDDEN_FROM_TABLES)
    name = format_name or _told_by_names(entries)
    footers = read_footers(name, entries)
    parsed = [{} if name == "files" else _parse_hive(entry.path) for entry in entries]
    partitions = _typed_partitions(entries, parsed)

    def hive_field(key: str) -> pa.Field:
        is_number = all(isinstance(partition[key], int | None) for partition in partitions)
        return pa.field(key, pa.int64() if is_number else pa.string())

    return _make_listing(name, entries, footers, partitions, tuple(map(hive_field, partitions[0])))


def list_table(snapshot: Snapshot, where: str) -> Listing:
    """List a table's live files and read their footers, in parallel. where: the table, for messages.

    Raises InputError naming the file.
    """
    version = f"version {snapshot.version}"
    if not snapshot.files:
        facts = {"table": where, "found": f"no rows at {version}"}
        raise InputError(
            Problem("the table is empty", facts, "name another version, or run when it has rows")
        )
    live = {file.path: file for file in snapshot.files}
    paths = natural(live)
    found = map_files(lambda file: find_file(file.path), [live[path] for path in paths])
    entries = [entry for entry in found if entry is not None and entry.size == live[entry.path].size]
    if len(entries) < len(paths):
        gone = next(path for path in paths if path not in {entry.path for entry in entries})
        facts = {"table": f"{where}, {version}", "file": gone}
        fix = "name a newer version: this one's files have been removed (VACUUM, expired snapshots)"
        raise InputError(Problem("a file of the table is gone, or isn't what its records say", facts, fix))
    footers = read_footers("parquet", entries)
    _check_names(entries, footers, snapshot, where)
    partitions = [live[entry.path].partition for entry in entries]
    listing = _make_listing("parquet", entries, footers, partitions, snapshot.partitions)
    return replace(listing, version=snapshot.version)


def _check_names(
    entries: Sequence[FileEntry], footers: Sequence[Footer], snapshot: Snapshot, where: str
) -> None:
    """Columns are read by name, so a name has to mean the same in a file as in the table."""
    names = snapshot.names or {}
    checked: set[int] = set()
    for entry, footer in zip(entries, footers, strict=True):
        if id(footer.schema) in checked:
            continue
        checked.add(id(footer.schema))
        for field in footer.schema:
            number = (field.metadata or {}).get(b"PARQUET:field_id")
            now = names.get(int(number), field.name) if number is not None else field.name
            if names and now != field.name:
                facts = {
                    "table": where,
                    "file": entry.path,
                    "column": field.name,
                    "found": f"now called {now}",
                }
                fix = "rewrite the table's data files (rewrite_data_files), or score another snapshot"
                raise InputError(Problem("a column has been renamed since a file was written", facts, fix))


def _make_listing(
    name: str,
    entries: Sequence[FileEntry],
    footers: Sequence[Footer],
    partitions: Sequence[Mapping[str, object]],
    keys: tuple[pa.Field, ...],
) -> Listing:
    files = tuple(
        SourceFile(entry.path, entry.size, entry.version, footer, partition)
        for entry, footer, partition in zip(entries, footers, partitions, strict=True)
    )
    fields = [_common_field(field, footers) for field in footers[0].schema.remove_metadata()]
    taken = {field.name for field in fields}
    if len(taken) < len(fields):
        names = footers[0].schema.names
        twice = next(name for name in names if names.count(name) > 1)
        facts = {"file": files[0].path, "column": twice}
        fix = "write the file again with names that differ"
        raise InputError(Problem(f'the file has several columns named "{twice}"', facts, fix))
    for key in keys:
        if key.name in taken:
            facts = {"file": files[0].path, "column": key.name}
            fix = "rename the folder's key, or the column"
            raise InputError(Problem(f'"{key.name}" is both a column and a partition folder', facts, fix))
    return Listing(name, files, pa.schema([*fields, *keys]), tuple(key.name for key in keys))


def _common_field(field: pa.Field, footers: Sequence[Footer]) -> pa.Field:
    """The first file's field, as it is read; it may be null if any file says so."""
    field = field.with_type(joinable(field.type))
    if field.nullable:
        return field
    others = (footer.schema.field(field.name) for footer in footers if field.name in footer.schema.names)
    return field.with_nullable(any(other.nullable for other in others))


def check_columns(listing: Listing, columns: Iterable[str]) -> None:
    """Every file has each of these columns with the type that the first file gives it.

    Raises ContractError with the differences: file, column, expected, found.
    """
    wanted = [name for name in columns if name not in listing.partition_columns]
    types = {name: listing.schema.field(name).type for name in wanted}
    problems: list[Problem] = []
    total = 0
    checked = {id(listing.files[0].footer.schema)}
    for file in listing.files:
        schema = file.footer.schema
        if id(schema) in checked:
            continue
        differences = list(_differences(file.path, schema, types, listing.files[0].path))
        if not differences:
            checked.add(id(schema))
        total += len(differences)
        problems += differences[: SHOWN - len(problems)]
    if total > len(problems):
        problems.append(Problem(f"and {total - len(problems)} more differences between the files", {}, ""))
    if problems:
        raise ContractError(*problems)


def _differences(
    path: str, schema: pa.Schema, types: dict[str, pa.DataType], first: str
) -> Iterator[Problem]:
    for name, wanted in types.items():
        index = schema.get_field_index(name)
        facts = {"file": path, "column": name, "expected": f"{wanted}, as in {first}"}
        if index < 0:
            fix = "leave the file out of input.path, or write the column into it"
            yield Problem(f'a file has no column "{name}"', facts, fix)
        elif joinable(schema.field(index).type) != wanted:
            facts["found"] = str(schema.field(index).type)
            fix = "write the file again with the same types, or score it in a job of its own"
            yield Problem(f'column "{name}" has another type in one file', facts, fix)


def _told_by_names(entries: Sequence[FileEntry]) -> str:
    formats = {format_of(entry.path): entry.path for entry in entries}
    if len(formats) == 1 and (name := next(iter(formats))) is not None:
        return name
    if None in formats:
        facts = {"file": formats[None]}
        fix = "say it with input.format (files: a row for every file), or name the files: data/*.parquet"
        raise InputError(Problem("the file's name doesn't tell its format", facts, fix))
    facts = {str(name): path for name, path in formats.items()}
    fix = "name the files of one format: data/*.parquet"
    raise InputError(Problem("the input mixes formats", facts, fix))


def _parse_hive(path: str) -> dict[str, str | None]:
    """`…/day=2026-11-22/country=DE/x.parquet` -> {"day": "2026-11-22", "country": "DE"}."""
    pairs = (folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
    return {unquote(key): None if value == HIVE_NULL else unquote(value) for key, value in pairs if key}


def _typed_partitions(
    entries: Sequence[FileEntry], parsed: Sequence[dict[str, str | None]]
) -> list[dict[str, int | str | None]]:
    """Values as integers where all of a key's are; the same keys for every file."""
    keys = list(parsed[0])
    for entry, partition in zip(entries, parsed, strict=True):
        if list(partition) != keys:
            facts = {
                "file": entry.path,
                "expected": "/".join(f"{key}=…" for key in keys) or "no partition folders",
                "found": "/".join(f"{key}=…" for key in partition) or "no partition folders",
            }
            fix = "name files of one layout in input.path"
            raise InputError(Problem("a file's partition folders differ from the others'", facts, fix))
    numeric = {key: all(_is_integer(partition[key]) for partition in parsed) for key in keys}

    def convert(key: str, value: str | None) -> int | str | None:
        return int(value) if value is not None and numeric[key] else value

    return [{key: convert(key, value) for key, value in partition.items()} for partition in parsed]


def _is_integer(value: str | None) -> bool:
    """Digits that an int64 gives back: `007` is text, and so is what is longer."""
    return value is None or (_INTEGER.fullmatch(value) is not None and -(2**63) <= int(value) < 2**63)
