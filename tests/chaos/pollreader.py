"""Watches an output folder as its readers would, and tells every row count they ever saw.

    with PollReader(out) as watch:                       # threads; or PollProcess(out)
        ...                                              # run, crash, run again, publish
    watch.report.assert_only({0, 4000})                  # or {old, new}

The readers, each in its own thread, as fast as they can:

    dataset   pyarrow.dataset over the folder
    glob      the footers of folder/**/*.parquet, one by one
    duckdb    read_parquet('folder/**/*.parquet')
    marker    as glob, but 0 as long as there is no _SUCCESS
    (yours)   readers={"manifest": lambda: batchonnx.dataset(out).count_rows()}

A missing or empty folder counts as 0 rows. Anything that a reader raises is recorded as an
error, never as a count. `deep=True` reads every value instead of the footers only.

On the command line, until SIGTERM, Ctrl-C, --seconds or --until-eof:

    python pollreader.py FOLDER_OR_S3_URL --json [--readers dataset,glob] [--only 0,4000]

Exit code 1 if --only is given and something else, or an error, was seen. For S3 the store comes
from the environment (AWS_ENDPOINT_URL and so on). Needs pyarrow, duckdb, and for S3 s3fs; no
other file. A sampler proves that something was seen, not that it never was: make windows wide
with faultproxy's delay.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import fsspec
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

PATTERN = "**/*.parquet"
BUILT_IN = ("dataset", "glob", "duckdb", "marker")


@dataclass
class Seen:
    """What one reader saw: how often each count and error, and the order of changes."""

    polls: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    changes: list[tuple[float, int | str]] = field(default_factory=list)

    def note(self, at_s: float, result: int | str) -> None:
        """Record one poll: a count, or an error's text."""
        self.polls += 1
        if isinstance(result, int):
            self.counts[result] += 1
        else:
            self.errors[result] += 1
        if not self.changes or self.changes[-1][1] != result:
            self.changes.append((round(at_s, 4), result))


@dataclass
class Report:
    """What all readers saw."""

    readers: dict[str, Seen]

    @property
    def counts(self) -> set[int]:
        """Every row count that any reader saw."""
        return {count for seen in self.readers.values() for count in seen.counts}

    @property
    def errors(self) -> set[str]:
        """Every error that any reader met."""
        return {error for seen in self.readers.values() for error in seen.errors}

    def strays(self, allowed: set[int]) -> list[str]:
        """A line for each thing seen that is not among the allowed counts."""
        return [
            f"{name}: {thing!r} at {at_s} s"
            for name, seen in self.readers.items()
            for at_s, thing in seen.changes
            if thing not in allowed
        ]

    def assert_only(self, allowed: set[int]) -> None:
        """Fail unless every reader polled, and saw only these counts and no errors."""
        idle = [name for name, seen in self.readers.items() if not seen.polls]
        assert not idle, f"never polled: {idle}"
        assert not (strays := self.strays(allowed)), "\n".join(strays[:20])

    def as_json(self) -> str:
        """One JSON object, counts as keys."""
        return json.dumps({name: vars(seen) for name, seen in self.readers.items()})

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The inverse of as_json."""
        report = cls({})
        for name, seen in json.loads(text).items():
            counts = Counter({int(count): n for count, n in seen["counts"].items()})
            changes = [(at_s, thing) for at_s, thing in seen["changes"]]
            report.readers[name] = Seen(seen["polls"], counts, Counter(seen["errors"]), changes)
        return report


class PollReader:
    """Watches in threads of this process, from `start` to `stop`, then has a `report`.

    target: a local folder or "s3://bucket/prefix".
    storage: for S3, the keyword arguments of s3fs and of pyarrow, as s3server's
    `{"s3fs": s3.access.s3fs(), "pyarrow": s3.access.pyarrow()}`; else from the environment.
    readers: functions of your own that return a row count, added to the `built_in` ones.
    """

    def __init__(
        self,
        target: str,
        *,
        built_in: tuple[str, ...] = BUILT_IN,
        readers: Mapping[str, Callable[[], int]] | None = None,
        storage: Mapping[str, dict[str, Any]] | None = None,
        deep: bool = False,
        pause_s: float = 0,
    ) -> None:
        ours = Readers(str(target), storage or {}, deep)
        known = {name: getattr(ours, name) for name in built_in}
        self._readers: dict[str, Callable[[], int]] = known | dict(readers or {})
        self._pause_s = pause_s
        self._ended = threading.Event()
        self.report = Report({name: Seen() for name in self._readers})
        self._threads = [
            threading.Thread(target=self._poll, args=(name,), name=f"poll-{name}", daemon=True)
            for name in self._readers
        ]

    def start(self) -> Self:
        """Begin; return when each reader has polled once."""
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        while not all(seen.polls for seen in self.report.readers.values()):
            time.sleep(0.005)
        return self

    def stop(self) -> Report:
        """End after the poll under way, and one more, so that the last state was seen."""
        self._ended.set()
        for thread in self._threads:
            thread.join(120)
        return self.report

    def _poll(self, name: str) -> None:
        is_last = False
        while not is_last:
            is_last = self._ended.is_set()
            try:
                result: int | str = self._readers[name]()
            except Exception as error:
                result = f"{type(error).__name__}: {error}"[:300]
            self.report.readers[name].note(time.monotonic() - self._started, result)
            self._ended.wait(self._pause_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()


class PollProcess:
    """The same in a process of its own, so that it does not share the test's interpreter lock.

    For the built-in readers only; `env` says where S3 is (s3server's `s3.env()`).
    """

    def __init__(self, target: str, *options: str, env: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, __file__, str(target), "--json", "--until-eof", *options]
        self._env = env
        self.report = Report({})

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, env=self._env)
        assert self._process.stdout
        assert self._process.stdout.readline() == "watching\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:  # the end of its input is what ends it, so it ends with this process, too
            self.report = Report.from_json(self._process.communicate(timeout=120)[0])
        finally:
            self._process.kill()


class Readers:
    """Four ways to count the rows of a folder of Parquet files, without any cache."""

    def __init__(self, target: str, storage: Mapping[str, dict[str, Any]], deep: bool) -> None:
        self._is_s3 = target.startswith("s3://")
        self._path = target.removeprefix("s3://").rstrip("/")
        self._deep = deep
        fresh = {"use_listings_cache": False, "skip_instance_cache": True}
        kind = "s3" if self._is_s3 else "file"
        self._fs = fsspec.filesystem(kind, **fresh | storage.get("s3fs", {}))
        self._arrow: pyarrow.fs.FileSystem = pyarrow.fs.LocalFileSystem()
        if self._is_s3 and "pyarrow" in storage:
            self._arrow = pyarrow.fs.S3FileSystem(**storage["pyarrow"])
        elif self._is_s3:
            self._arrow, _ = pyarrow.fs.FileSystem.from_uri(target)

    def dataset(self) -> int:
        """pyarrow.dataset, which leaves out names that begin with "_" or "."."""
        if self._arrow.get_file_info(self._path).type == pyarrow.fs.FileType.NotFound:
            return 0
        data = ds.dataset(self._path, filesystem=self._arrow, format="parquet")
        return int(data.to_table().num_rows if self._deep else data.count_rows())

    def glob(self) -> int:
        """Each file that the pattern finds, hidden folders left out."""
        rows = 0
        for path in self._fs.glob(f"{self._path}/{PATTERN}"):
            parts = str(path).removeprefix(self._path).strip("/").split("/")
            if not any(part.startswith(("_", ".")) for part in parts):
                with self._fs.open(path) as file:
                    source = pq.ParquetFile(file)
                    rows += source.read().num_rows if self._deep else source.metadata.num_rows
        return rows

    def marker(self) -> int:
        """What a reader sees who waits for _SUCCESS."""
        return self.glob() if self._fs.exists(f"{self._path}/_SUCCESS") else 0

    def duckdb(self) -> int:
        """DuckDB, with a new connection each time; S3 through fsspec, not its own extension."""
        import duckdb

        with duckdb.connect() as connection:
            if self._is_s3:
                connection.register_filesystem(self._fs)
            source = f"read_parquet('{'s3://' * self._is_s3}{self._path}/{PATTERN}')"
            what = "count(columns(*))" if self._deep else "count(*)"
            try:
                row = connection.execute(f"select count(*), {what} from {source}").fetchone()
            except duckdb.IOException as error:
                if "No files found" in str(error):
                    return 0
                raise
            return int(row[0]) if row else 0


def wait_for_eof(ended: threading.Event) -> None:
    """Set the event when the standard input ends."""
    sys.stdin.read()
    ended.set()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", help="a folder or s3://bucket/prefix")
    parser.add_argument("--readers", default=",".join(BUILT_IN), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--until-eof", action="store_true", help="stop at the end of the input")
    parser.add_argument("--only", help="the allowed row counts, as 0,4000")
    parser.add_argument("--deep", action="store_true", help="read values, not only footers")
    parser.add_argument("--pause", type=float, default=0, help="seconds between polls")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    args = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    names = tuple(args.readers.split(","))
    with PollReader(args.target, built_in=names, deep=args.deep, pause_s=args.pause) as watch:
        print("watching", flush=True)
        if args.until_eof:
            threading.Thread(target=wait_for_eof, args=(ended,), daemon=True).start()
        until = time.monotonic() + (args.seconds or float("inf"))
        while not ended.wait(0.2) and time.monotonic() < until:
            pass  # not one long wait, in which a signal can go unnoticed
    if args.json:
        print(watch.report.as_json())
    else:
        for name, seen in watch.report.readers.items():
            print(f"{name}: {seen.polls} polls, counts {dict(seen.counts)}, {dict(seen.errors)}")
    strays = watch.report.strays({int(n) for n in args.only.split(",")}) if args.only else []
    print(*strays[:20], sep="\n", end="\n" if strays else "", file=sys.stderr)
    return bool(strays)


if __name__ == "__main__":
    sys.exit(main())
