"""From a path or URL to bytes: file systems, listing, opening."""

from __future__ import annotations

import atexit
import errno
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from batchonnx.errors import BatchonnxError, DependencyError, InputError, Problem, StorageError
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.globs import glob_regex, is_glob, literal_prefix

HIDDEN_FROM_TABLES = (".", "_")
"""Spark, Hive and pyarrow leave out such names in a table's folder: staging, metadata, _SUCCESS."""


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URL, and the path within it.

    Raises DependencyError for a scheme whose package isn't installed, StorageError for an unknown one.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    scheme = path.partition("://")[0]
    if scheme in ("file", "s3"):
        filesystem, inner = pafs.FileSystem.from_uri(path)
        return filesystem, str(inner)
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except ImportError as error:
        fix = f"pip install {_package(str(error)) or scheme}"
        raise DependencyError(Problem(f"{scheme}:// needs a package", {"path": path}, fix)) from error
    except ValueError as error:
        fix = "correct the scheme"
        raise StorageError(Problem(f"unknown scheme {scheme}://", {"path": path}, fix)) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), inner


def is_ranged(path: str) -> bool:
    """Whether its bytes come by requests of our own: told in advance which, they are fetched ahead."""
    return path.startswith("s3://")


def open_input(file: FileEntry | str, first_bytes: int = 0) -> pa.NativeFile:
    """A seekable file for reading. Raises InputError naming the path; also for an object of another etag.

    first_bytes: how many will be read in any case, from the beginning.
    """
    path = file if isinstance(file, str) else file.path
    if is_ranged(path):
        from batchonnx.storage.s3_input import open_s3

        opened = open_s3(file, first_bytes)
        if opened is None:
            raise _missing(path, InputError, "the file")
        return pa.PythonFile(opened, mode="r")
    filesystem, inner = open_filesystem(path)
    try:
        return filesystem.open_input_file(inner)
    except OSError as error:
        raise _unreadable(error, path, InputError, "the file") from error


def local_copy(path: str, kind: type[BatchonnxError], what: str) -> Path:
    """A local path with the bytes of `path`: itself, or a temporary copy of a URL's, kept until exit.

    Raises `kind`, naming `what`, if there is no such file.
    """
    if "://" not in path:
        if not Path(path).is_file():
            raise _missing(path, kind, what)
        return Path(path)
    folder = Path(tempfile.mkdtemp(prefix="batchonnx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / (PurePosixPath(path.partition("://")[2]).name or "file")
    if is_ranged(path):
        from batchonnx.storage.s3_input import copy_s3

        if not copy_s3(path, target, kind):
            raise _missing(path, kind, what)
        return target
    filesystem, inner = open_filesystem(path)
    try:
        pafs.copy_files(inner, str(target), source_filesystem=filesystem)
    except OSError as error:
        raise _unreadable(error, path, kind, what) from error
    return target


def list_files(patterns: Sequence[str], hidden: tuple[str, ...] = HIDDEN_FROM_TABLES) -> list[FileEntry]:
    """All files that the patterns name, each once, sorted by path.

    A pattern is a file, a folder (with everything below it but names that begin with one of
    `hidden`), or a glob: `*`, `?` and `[…]` within a name, `**` for any folders.
    Raises InputError for a pattern that names nothing.
    """
    found: dict[str, FileEntry] = {}
    for pattern in patterns:
        entries = list(_expand(pattern, hidden))
        if not entries:
            title = (
                "no file matches the input's path" if is_glob(pattern) else "the input folder has no files"
            )
            fix = f"correct input.path; names that begin with {' or '.join(hidden)} are left out"
            raise InputError(Problem(title, {"path": pattern}, fix))
        found.update((entry.path, entry) for entry in entries)
    return [found[path] for path in natural(found)]


def natural(paths: Iterable[str]) -> list[str]:
    """Sorted as people count: part-2 before part-10."""
    return sorted(paths, key=_natural)


def find_file(path: str) -> FileEntry | None:
    """One file as a listing would tell of it; None if it isn't there. Raises InputError."""
    if is_ranged(path):
        from batchonnx.storage.s3 import s3_client, split_url

        bucket, key = split_url(path)
        found = s3_client().head(bucket, key, InputError)
        return FileEntry(path, found.size, found.etag) if found is not None else None
    filesystem, inner = open_filesystem(path)
    try:
        info = filesystem.get_file_info(inner)
    except OSError as error:
        raise _unreadable(error, path, InputError, "the file") from error
    return FileEntry(path, info.size, _version(info)) if info.type == pafs.FileType.File else None


def version_of(path: str) -> str | None:
    """A local file's version as `list_files` gives it; None if it is gone, or has a URL.

    Asking a store costs a request, and some answer with another precision than when they list.
    """
    if "://" in path:
        return None
    info = pafs.LocalFileSystem().get_file_info(path)
    return _entry("", info).version if info.type == pafs.FileType.File else None


def _natural(path: str) -> list[tuple[int, int, str]]:
    return [(0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.split(r"(\d+)", path) if t]


def _expand(pattern: str, hidden: tuple[str, ...]) -> Iterator[FileEntry]:
    if is_ranged(pattern):
        from batchonnx.storage.s3_input import expand_s3

        objects = expand_s3(pattern, hidden)
        if objects is None:
            raise _missing(pattern, InputError, "the input")
        yield from objects
        return
    filesystem, inner = open_filesystem(pattern)
    prefix = pattern[: len(pattern) - len(inner)] if pattern.endswith(inner) else ""
    if "://" in pattern and not prefix:
        prefix = pattern.partition("://")[0] + "://"
    if isinstance(filesystem, pafs.LocalFileSystem):
        prefix = ""
    try:
        info = filesystem.get_file_info(inner.rstrip("/") or "/")
        if info.type == pafs.FileType.File:
            yield _entry(prefix, info)
            return
        if info.type == pafs.FileType.Directory:
            yield from _below(filesystem, inner, prefix, hidden)
            return
        if not is_glob(inner):
            raise _missing(pattern, InputError, "the input")
        root = inner[: literal_prefix(inner).rfind("/") + 1]
        wanted = glob_regex(inner)
        if filesystem.get_file_info(root.rstrip("/") or "/").type == pafs.FileType.NotFound:
            raise _missing(root, InputError, "the folder")
        yield from (
            e for e in _below(filesystem, root, prefix, hidden) if wanted.fullmatch(e.path[len(prefix) :])
        )
    except OSError as error:
        raise _unreadable(error, pattern, InputError, "the input") from error


def _below(
    filesystem: pafs.FileSystem, folder: str, prefix: str, hidden: tuple[str, ...]
) -> Iterator[FileEntry]:
    base = folder.rstrip("/")
    for info in filesystem.get_file_info(pafs.FileSelector(base or "/", recursive=True)):
        if info.type != pafs.FileType.File:
            continue
        inside = info.path[len(base) :].lstrip("/")
        if not any(part.startswith(hidden) for part in inside.split("/")):
            yield _entry(prefix, info)


def _entry(prefix: str, info: pafs.FileInfo) -> FileEntry:
    return FileEntry(prefix + info.path, info.size, _version(info))


def _version(info: pafs.FileInfo) -> str:
    return str(info.mtime_ns or "")


def _missing(path: str, kind: type[BatchonnxError], what: str) -> BatchonnxError:
    facts = {"path": path}
    if "://" not in path and Path(path).is_dir():
        return kind(Problem(f"{what} is a folder, a file is wanted", facts, "name the file in it"))
    near = _nearest(path)
    fix = f"did you mean {near}?" if near else "correct the path"
    return kind(Problem(f"{what} isn't there", facts, fix))


def _nearest(path: str) -> str | None:
    if "://" in path:
        return None
    target = Path(path)
    try:
        siblings: Iterable[str] = [entry.name for entry in target.parent.iterdir()]
    except OSError:
        return None
    near = get_close_matches(target.name, list(siblings), 1)
    return str(target.with_name(near[0])) if near else None


def _unreadable(error: OSError, path: str, kind: type[BatchonnxError], what: str) -> BatchonnxError:
    if isinstance(error, FileNotFoundError):
        return _missing(path, kind, what)
    reason = "may not be read" if error.errno in (errno.EACCES, errno.EPERM) else "can't be read"
    facts = {"path": path, "found": error.strerror or str(error).splitlines()[0]}
    return kind(Problem(f"{what} {reason}", facts, "check the path and its permissions"))


def _package(message: str) -> str | None:
    match = re.search(r"(?:[Ii]nstall|No module named) '?([\w-]+)", message)
    return match[1] if match else None
