"""The footers of all input files: looked up where they were read before, else read in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer
from batchonnx.formats.footer_cache import find_footers, keep_footers
from batchonnx.formats.registry import get_format
from batchonnx.storage.entry import FileEntry

THREADS = 8
REMOTE_THREADS = 32
"""A store is waited for most of the time."""
SLICE = 64
"""Files that a thread takes at a time: with single ones, memory for 10,000 files was 830 MB, not 100."""
REMOTE_SLICE = 8
SHOWN = 10
CACHED = ("parquet",)
"""Formats whose footer has to be fetched, and says nothing that this release made up."""


class _Placed(Protocol):
    @property
    def path(self) -> str: ...


File = TypeVar("File", bound=_Placed)
Result = TypeVar("Result")


def read_footers(format_name: str, entries: Sequence[FileEntry]) -> list[Footer]:
    """Footers in the entries' order; equal schemas are one object, so that many files cost little.

    Raises InputError naming the files that can't be read.
    """
    known = find_footers(entries) if format_name in CACHED else {}
    missing = [entry for entry in entries if entry.path not in known]
    results = dict(zip((entry.path for entry in missing), _read(format_name, missing), strict=True))
    errors = [result for result in results.values() if isinstance(result, InputError)]
    if errors:
        problems = [problem for error in errors[:SHOWN] for problem in error.problems]
        if len(errors) > SHOWN:
            problems.append(Problem(f"and {len(errors) - SHOWN} more files can't be read", {}, ""))
        raise InputError(*problems)
    read = {path: result for path, result in results.items() if isinstance(result, Footer)}
    if read and format_name in CACHED:
        keep_footers((entry, read[entry.path]) for entry in missing)
    footers = [known.get(entry.path) or read[entry.path] for entry in entries]
    return [_sharing(footer, footers[0]) for footer in footers]


def map_files(function: Callable[[File], Result], files: Sequence[File]) -> list[Result]:
    """The function's results for files that it opens, in order; several are open at once."""
    is_remote = any("://" in file.path for file in files)
    threads, size = (REMOTE_THREADS, REMOTE_SLICE) if is_remote else (THREADS, SLICE)
    slices = [files[first : first + size] for first in range(0, len(files), size)]
    with ThreadPoolExecutor(threads) as pool:
        return [
            result for some in pool.map(lambda part: list(map(function, part)), slices) for result in some
        ]


def _read(format_name: str, entries: Sequence[FileEntry]) -> list[Footer | InputError]:
    read = get_format(format_name).read_footer
    latest: Footer | None = None

    def attempt(entry: FileEntry) -> Footer | InputError:
        nonlocal latest
        try:
            footer = read(entry)
        except InputError as error:
            return error
        latest = _sharing(footer, latest or footer)
        return latest

    return list(map(attempt, entries)) if format_name == "files" else map_files(attempt, entries)


def _sharing(footer: Footer, first: Footer) -> Footer:
    if footer.schema is first.schema or not footer.schema.equals(first.schema):
        return footer
    return replace(footer, schema=first.schema)
