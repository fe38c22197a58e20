"""The records of a run: what lies in `_batchonnx/`, described in docs/records.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from batchonnx.errors import Problem, StorageError
from batchonnx.parts.layout import PLAIN, Layout

FORMAT_VERSION = 4
"""Raised by a change that an older reader would misread; keys that are only added don't raise it."""

_LINES_ARE_ROWS = 3
"""The version of every result that isn't exploded: what came later is about lines."""

_BEFORE_PARTS = 2
"""The version in which a shard had one part, and a result was Parquet in one folder. It is read as well."""


@dataclass(frozen=True)
class SourceRows:
    """A share of one input file. rows: those that were found there, from `first_row` on."""

    path: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int


@dataclass(frozen=True)
class Upload:
    """A multipart upload that holds a file until it is published.

    id: the store's. mark: its object's metadata, by which it is known for this upload's. pieces: etags.
    """

    id: str
    mark: str
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class StoredFile:
    """A file of the result. path: relative to the result's folder. bytes: its size.

    upload: what holds it until it is published, in a store of objects; None on a disk.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    upload: Upload | None = None


@dataclass(frozen=True)
class Commit:
    """A shard that is done. rows_in == predicted + quarantined + filtered.

    attempt: tells two tries at one shard apart. at: when it was done (UTC, ISO 8601).
    part: its name in the plan. parts: the predictions' files, one row for each predicted row, each
    folder's in the order of the input; none if no row was predicted and the result is partitioned.
    quarantine: the rows that couldn't be scored; None if there are none. order: each line's folder, in the
    order of the input; None if the result isn't partitioned. calls: of the model.
    seconds: stage -> seconds of the worker between the commit before and this one.
    token: of the lease that it was made under; 0 on a disk, where the kernel keeps the lease.
    host, worker: who did it; empty in records that don't tell. took_s: from when its first rows
    were read until it was committed. memory: bytes of that process that were resident then.
    """

    shard: int
    attempt: str
    at: str
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    part: str
    parts: tuple[StoredFile, ...]
    quarantine: StoredFile | None
    sources: tuple[SourceRows, ...]
    batch_rows: int
    calls: int
    seconds: Mapping[str, float]
    token: int = 0
    order: StoredFile | None = None
    host: str = ""
    worker: str = ""
    took_s: float = 0.0
    memory: int = 0


def files_of(record: Commit) -> tuple[StoredFile, ...]:
    """A commit's parts, and what else there is of it: quarantine, order."""
    return (*record.parts, *(one for one in (record.quarantine, record.order) if one is not None))


def lines_of(commit: Commit) -> int:
    """Rows of its parts: one for each predicted row, or several where the result is exploded."""
    return sum(part.rows for part in commit.parts)


@dataclass(frozen=True)
class ShardRecord:
    """A shard of the plan. sources: path, row groups, first row, rows (None where only reading tells)."""

    shard: int
    part: str
    sources: tuple[tuple[str, tuple[int, ...], int, int | None], ...]


@dataclass(frozen=True)
class PlanRecord:
    """What a run set out to do: written once, read again on resume.

    run: tells runs apart. job: the job file as it was understood, defaults filled in.
    identity: everything that the result depends on (see `planning.identity`).
    files: path -> rows, None where only reading tells. pruned: rows left out unread, by the filter.
    since: the published run whose parts an incremental run keeps; None for a run of everything.
    kept: the shards of those parts. layout: how the parts are written.
    """

    run: str
    version: str
    created: str
    job: Mapping[str, Any]
    folder: str
    identity: Mapping[str, str]
    fingerprint: str
    files: Mapping[str, int | None]
    pruned: int
    since: str | None
    kept: tuple[int, ...]
    shards: tuple[ShardRecord, ...]
    layout: Layout = PLAIN


@dataclass(frozen=True)
class Probe:
    """What the run's first rows taught. neighbour_difference: as in the manifest."""

    batch_rows: int
    neighbour_difference: float | None


@dataclass(frozen=True)
class Finding:
    """What a check of the gate found. check: the setting. limit, found: as told to the user."""

    column: str
    check: str
    limit: str
    found: str
    is_passed: bool


@dataclass(frozen=True)
class Work:
    """How the last life of a run has worked, up to its publication.

    host, machine: the driver's name and its kind of CPU. cores: that it may use. began: UTC, ISO 8601.
    first_row_s: from its begin to the first predicted batch; start_s: until the first worker of a cluster was
    ready; None where nothing was scored, or there was no cluster. The counts are as in the run's summary.
    requests: operation of the store -> requests. memory: the most bytes that the driver's process had
    resident. device: of the sessions, by the job file's words.
    """

    engine: str
    host: str
    machine: str
    cores: int
    workers: int
    threads_per_worker: int
    began: str
    elapsed_s: float
    first_row_s: float | None
    start_s: float | None
    resumed: int
    kept: int
    halved: int
    apart: int
    lost: int
    copied: int
    requests: Mapping[str, int]
    memory: int
    device: str = "cpu"


@dataclass(frozen=True)
class ColumnProfile:
    """How the values of a column are distributed, by a sample of the result's rows.

    rows: looked at. nulls: null or NaN among them. values: numbers or labels that were looked at; more than
    rows where a row holds a list of them. low, high, mean: of the finite numbers; None without any.
    edges, counts: a histogram, count i from edge i up to edge i + 1; empty for labels. labels: the most
    frequent ones with their counts; empty for numbers.
    """

    column: str
    type: str
    rows: int
    nulls: int
    values: int
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    labels: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class PastRun:
    """A run whose result was replaced. completed: when its last shard was (UTC, ISO 8601).

    elapsed_s: of its last life; None where it wasn't kept.
    """

    run: str
    version: str
    fingerprint: str
    model: str
    completed: str
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    elapsed_s: float | None


@dataclass(frozen=True)
class Manifest:
    """What was published. rows_in == predicted + quarantined + filtered, pruned rows included.

    model: its SHA-256 digest.
    replaces: the run whose result this one took the place of; None for the first.
    neighbour_difference: see `scoring.neighbours`; None if it wasn't measured. layout: how to read the parts.
    work: None in records that don't tell. history: results that were published here before, the oldest first.
    before: the columns of the one that this one took the place of.
    """

    run: str
    fingerprint: str
    model: str
    replaces: str | None
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    batch_rows: int
    neighbour_difference: float | None
    notes: tuple[str, ...]
    gate: tuple[Finding, ...]
    commits: tuple[Commit, ...]
    layout: Layout = PLAIN
    work: Work | None = None
    history: tuple[PastRun, ...] = ()
    before: tuple[ColumnProfile, ...] = ()

    @property
    def completed(self) -> str:
        """When the last shard was; empty if there was none."""
        return max((commit.at for commit in self.commits), default="")


@dataclass(frozen=True)
class Compacted:
    """Many commits in one object: what a run that goes on reads in place of each one's own."""

    commits: tuple[Commit, ...]


Record = TypeVar("Record", Commit, PlanRecord, Probe, Manifest, Compacted)


def to_bytes(record: Commit | PlanRecord | Probe | Manifest | Compacted) -> bytes:
    """A record as JSON, its format's version first."""
    has_lines = isinstance(record, PlanRecord | Manifest) and record.layout.exploded
    version = FORMAT_VERSION if has_lines else _LINES_ARE_ROWS
    return (json.dumps({"format": version, **asdict(record)}) + "\n").encode()


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """Read a record. Raises FileNotFoundError, StorageError if it is damaged or of a newer format."""
    with open(path, "rb") as file:  # noqa: PTH123 a Path for each of 100,000 records costs a second
        return from_bytes(file.read(), kind, path)


def from_bytes(data: bytes, kind: type[Record], path: Path | str) -> Record:
    """A record from its JSON. path: for messages. Raises StorageError as `read_record`."""
    try:
        fields = json.loads(data)
        found = fields.pop("format")
        if found in (FORMAT_VERSION, _LINES_ARE_ROWS, _BEFORE_PARTS):
            return _READERS[kind](fields)  # type: ignore[no-any-return]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        facts = {"record": str(path), "found": repr(error)}
        fix = "restore the file, or start over with --fresh"
        raise StorageError(Problem("a record of the run is damaged", facts, fix)) from error
    is_newer = isinstance(found, int) and found > FORMAT_VERSION
    facts = {"record": str(path), "expected": f"format {FORMAT_VERSION}", "found": f"format {found}"}
    fix = "use the batchonnx that wrote it" + (", or a newer one" if is_newer else "; or start over: --fresh")
    age = "a newer" if is_newer else "an older"
    raise StorageError(Problem(f"the record was written by {age} batchonnx", facts, fix))


_KEYS: Mapping[type, frozenset[str]] = {
    kind: frozenset(field.name for field in dataclass_fields(kind))
    for kind in (
        Commit,
        StoredFile,
        PlanRecord,
        Probe,
        Finding,
        Manifest,
        Layout,
        Work,
        PastRun,
        ColumnProfile,
    )
}


def _known(kind: type[Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the keys that a newer batchonnx has added; what an older one didn't know is left out."""
    keys = _KEYS[kind]
    return fields if fields.keys() <= keys else {key: fields[key] for key in keys & fields.keys()}


def _stored(fields: Mapping[str, Any]) -> StoredFile:
    known = _known(StoredFile, fields)
    if upload := known.get("upload"):
        known = {**known, "upload": Upload(upload["id"], upload["mark"], tuple(upload["pieces"]))}
    return StoredFile(**known)


def _commit(fields: Mapping[str, Any]) -> Commit:
    quarantine, order = fields["quarantine"], fields.get("order")
    part = fields["part"]
    is_one = not isinstance(part, str)  # as format 2 had it
    return Commit(
        **{
            **_known(Commit, fields),
            "part": part["path"] if is_one else part,
            "parts": tuple(map(_stored, [part] if is_one else fields["parts"])),
            "quarantine": _stored(quarantine) if quarantine else None,
            "order": _stored(order) if order else None,
            "sources": tuple(
                SourceRows(s["path"], tuple(s["row_groups"]), s["first_row"], s["rows"])
                for s in fields["sources"]
            ),
        }
    )


def _plan(fields: Mapping[str, Any]) -> PlanRecord:
    shards = tuple(
        ShardRecord(
            s["shard"],
            s["part"],
            tuple((path, tuple(groups), first, rows) for path, groups, first, rows in s["sources"]),
        )
        for s in fields["shards"]
    )
    known = {**_known(PlanRecord, fields), "kept": tuple(fields["kept"]), "shards": shards}
    return PlanRecord(**{**known, "layout": _layout(fields)})


def _layout(fields: Mapping[str, Any]) -> Layout:
    if "layout" not in fields:
        return Layout()
    known = _known(Layout, fields["layout"])
    lists = {name: tuple(known.get(name, ())) for name in ("partition_by", "exploded")}
    return Layout(**{**known, **lists})


def _probe(fields: Mapping[str, Any]) -> Probe:
    return Probe(**_known(Probe, fields))


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    commits = tuple(map(_commit, fields["commits"]))
    gate = tuple(Finding(**_known(Finding, finding)) for finding in fields["gate"])
    known = _known(Manifest, fields)
    known = {**known, "notes": tuple(fields["notes"]), "gate": gate, "commits": commits}
    work = fields.get("work")
    known["work"] = Work(**_known(Work, work)) if work else None
    known["history"] = tuple(PastRun(**_known(PastRun, past)) for past in fields.get("history", ()))
    known["before"] = tuple(map(_profile, fields.get("before", ())))
    return Manifest(**{**known, "layout": _layout(fields)})


def _profile(fields: Mapping[str, Any]) -> ColumnProfile:
    known = {**_known(ColumnProfile, fields), "labels": tuple((label, n) for label, n in fields["labels"])}
    return ColumnProfile(**{**known, "edges": tuple(fields["edges"]), "counts": tuple(fields["counts"])})


def _compacted(fields: Mapping[str, Any]) -> Compacted:
    return Compacted(tuple(map(_commit, fields["commits"])))


_READERS: Mapping[type, Callable[[Mapping[str, Any]], Any]] = {
    Commit: _commit,
    PlanRecord: _plan,
    Probe: _probe,
    Manifest: _manifest,
    Compacted: _compacted,
}
