"""The input's files with their footers, listed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

from batchonnx.errors import ContractError, InputError, Problem
from batchonnx.formats.footer import Footer
from batchonnx.formats.registry import format_of
from batchonnx.planning.footers import read_footers
from batchonnx.planning.types import joinable
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import HIDDEN_FROM_TABLES, list_files

SHOWN = 10
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile(FileEntry):
    """One input file as the plan saw it.

    path: absolute path or URL. version: an etag, or mtime in ns; another one means another file.
    partition: Hive key -> value, parsed from the folders' names (None is Hive's null).
    """

    footer: Footer
    partition: dict[str, int | str | None]


@dataclass(frozen=True)
class Listing:
    """All input files in a fixed order, and the one schema that they share.

    format: parquet, arrow, csv, jsonl or files.
    schema: the files' columns, then the Hive partition columns.
    """

    format: str
    files: tuple[SourceFile, ...]
    schema: pa.Schema
    partition_columns: tuple[str, ...] = ()

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
    keys = tuple(partitions[0])
    for key in keys:
        if key in taken:
            facts = {"file": files[0].path, "column": key}
            fix = "rename the folder's key, or the column"
            raise InputError(Problem(f'"{key}" is both a column and a partition folder', facts, fix))
        is_number = all(isinstance(partition[key], int | None) for partition in partitions)
        fields.append(pa.field(key, pa.int64() if is_number else pa.string()))
    return Listing(name, files, pa.schema(fields), keys)


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
    """Digits that survive a round trip: `007` is text."""
    return value is None or (value.lstrip("-").isdecimal() and str(int(value)) == value)
