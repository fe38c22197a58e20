"""A run in a store of objects: parts are uploads that are held open until it is published.

    _batchonnx/unfinished.json                which run is under way
    _batchonnx/runs/RUN/plan.json             what it set out to do; stays when it is published
    _batchonnx/runs/RUN/probe.json            what its first rows taught
    _batchonnx/runs/RUN/commits/….json        a record for each part that counts, with its upload
    _batchonnx/runs/RUN/compacted/….json      many of them in one object, for the run's next life
    _batchonnx/runs/RUN/measured/….parquet    the gate's columns, as long as the parts can't be read
    _batchonnx/runs/RUN/deaths.json           shards that saw processes die
    _batchonnx/runs/RUN/manifest.json         all of it, once nothing is missing but to publish
    _batchonnx/runs/RUN/replaced.json         what to remove once it is published

Whoever calls holds the output's lease; one who held it, slept and wakes may call, too: nothing here
undoes what another has done.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from batchonnx.errors import OutputBusyError, OutputExistsError, Problem, StorageError
from batchonnx.ledger.object_folder import AT_ONCE, ObjectFolder
from batchonnx.ledger.object_scoring import (
    RECORDS,
    Lease,
    ObjectScoring,
    ObjectTicket,
    commit_name,
    measured_name,
    records_of,
)
from batchonnx.ledger.output import Kept, Ticket
from batchonnx.ledger.records import (
    Commit,
    Compacted,
    Manifest,
    PlanRecord,
    Probe,
    StoredFile,
    files_of,
    from_bytes,
    to_bytes,
)
from batchonnx.ledger.suspects import ENOUGH
from batchonnx.parts.layout import Layout, is_part, shard_of, stem_of
from batchonnx.parts.read import read_file

MANIFEST, SUCCESS = f"{RECORDS}/manifest.json", "_SUCCESS"
UNFINISHED = f"{RECORDS}/unfinished.json"
COMPACTED_AT_ONCE = 256
ASKED_AT_END = 4
_BESIDE = re.compile(rf"{RECORDS}/(quarantine|order)/part-\d{{6,}}-[0-9a-f]{{8}}\.\w+")


class ObjectRun:
    """See `output.Run`."""

    def __init__(
        self,
        folder: ObjectFolder,
        plan: PlanRecord,
        lease: Lease,
        commits: Mapping[int, Commit],
        suspects: frozenset[int] = frozenset(),
        probe: Probe | None = None,
    ) -> None:
        self._folder, self._lease = folder, lease
        gate = bool(plan.job.get("gate"))
        self._scoring = ObjectScoring(folder, plan.run, lease, suspects, keeps_measured=gate)
        self._records = records_of(plan.run)
        self.where, self.keeps_measured = self._scoring.where, gate
        self.start, self.stage = self._scoring.start, self._scoring.stage
        self.plan, self.commits, self.suspects, self.probe = plan, commits, suspects, probe
        self._recent: list[Commit] = []
        self._lock = threading.Lock()

    def ticket(self) -> Ticket:
        """The lease's token: what is written with it, a later holder may undo."""
        return ObjectTicket(self._folder.url, self.plan.run, self._lease.token, self.keeps_measured)

    def commit(self, record: Commit) -> Commit:
        """See `ObjectScoring.commit`."""
        made = self._scoring.commit(record)
        if made.attempt == record.attempt:
            self.take_note(made)
        return made

    def take_note(self, record: Commit) -> None:
        """Keep many commits in one object, too. Not done by workers elsewhere: theirs may not count."""
        with self._lock:
            self._recent.append(record)
        self._compact(COMPACTED_AT_ONCE)

    def end(self) -> None:
        """Uploads that nothing was written to are given up."""
        self._scoring.end()
        self._compact(AT_ONCE)  # fewer are read side by side, in the time of one

    def keep_probe(self, probe: Probe) -> None:
        """In a record beside the plan's."""
        self._lease.confirm()
        self._folder.put(f"{self._records}probe.json", to_bytes(probe))

    def read_staged(self, record: Commit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The gate's columns, kept beside."""
        name = measured_name(self._records, record.attempt)
        found = self._folder.get(name)
        if found is None:
            raise FileNotFoundError(self._folder.url_of(name))
        yield from read_file(pa.BufferReader(found[0]), Layout(), record.part, columns)

    def complete(self, manifest: Manifest, kept: Kept) -> None:
        """The manifest, among the run's own records; kept parts stay where they are."""
        self._lease.confirm()
        self._folder.put(f"{self._records}manifest.json", to_bytes(manifest))

    def publish(self, manifest: Manifest, overwrite: bool) -> None:
        """Complete the uploads, then swap the manifest, then write `_SUCCESS`.

        Whoever goes by the manifest sees the former result or the new one; whoever waits for `_SUCCESS`
        sees one of them whole, or waits. A publication that dies is finished by the run's next life.
        """
        former = self._folder.get(MANIFEST)
        if former is not None:
            self._publish_over(former, manifest, overwrite)
        else:
            self._lease.confirm()
            self._complete_uploads(manifest)
            self._lease.confirm()
            if self._folder.create(MANIFEST, to_bytes(manifest)) is None:
                raise self._taken()
        finish(self._folder, manifest, self._lease)

    def discard_if_empty(self) -> None:
        """Unless a shard is committed, or all are; or it isn't this run's to remove any more."""
        counts = (f"{self._records}commits/", f"{self._records}manifest")
        try:
            if any(entry.key.startswith(counts) for entry in self._folder.list(self._records)):
                return
            under_way, _ = read_unfinished(self._folder)
            published = self._folder.get(MANIFEST)
            is_published = published is not None and json.loads(published[0]).get("run") == self.plan.run
            if under_way == self.plan.run and not is_published:
                discard(self._folder, self.plan.run, self._lease)
        except OutputBusyError:
            return

    def _publish_over(self, former: tuple[bytes, str], manifest: Manifest, overwrite: bool) -> None:
        try:
            before = from_bytes(former[0], Manifest, self._folder.url_of(MANIFEST))
        except StorageError:
            before = None  # it is damaged, or a newer version's
        if before is not None and before.run == manifest.run:
            return  # by a life before, which died before it was done
        if not overwrite or (before.run if before is not None else None) != manifest.replaces:
            raise self._taken()
        stay = {stored.path for commit in manifest.commits for stored in files_of(commit)}
        were = (s.path for c in before.commits for s in files_of(c)) if before is not None else self._parts()
        gone = [path for path in were if path not in stay]
        replaced = {"run": before.run if before is not None else None, "files": gone}
        self._folder.put(f"{self._records}replaced.json", json.dumps(replaced).encode())
        mark = self._folder.get(SUCCESS)
        self._lease.confirm()
        if mark is not None:
            self._folder.delete_if(SUCCESS, mark[1])
        self._complete_uploads(manifest)
        self._lease.confirm()
        if self._folder.swap(MANIFEST, to_bytes(manifest), former[1]) is None:
            raise self._taken()

    def _parts(self) -> Iterable[str]:
        keys = self.plan.layout.partition_by
        return (entry.key for entry in self._folder.list() if is_ours(entry.key, keys))

    def _complete_uploads(self, manifest: Manifest) -> None:
        taken = set(self.plan.kept)
        held = [s for c in manifest.commits if c.shard not in taken for s in files_of(c) if s.upload]

        def complete(stored: StoredFile) -> None:
            assert stored.upload is not None
            folder, upload = self._folder, stored.upload
            key = folder.key(stored.path)
            folder.s3.complete_upload(folder.bucket, key, upload.id, upload.pieces, stored.bytes, upload.mark)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(complete, held))

    def _compact(self, least: int) -> None:
        """Keep the commits since the last time in one object, if they are that many."""
        with self._lock:
            if len(self._recent) < least:
                return
            recent, self._recent = self._recent, []
        name = f"{self._records}compacted/{recent[0].attempt}.json"
        self._folder.put(name, to_bytes(Compacted(tuple(recent))))

    def _taken(self) -> OutputExistsError:
        facts = {"output": self._folder.url}
        fix = "run the same command again: it tells what is there, or takes it into account"
        return OutputExistsError(Problem("another result has appeared at the output meanwhile", facts, fix))


def open_again(folder: ObjectFolder, plan: PlanRecord, lease: Lease, kept: Mapping[int, Commit]) -> ObjectRun:
    """A run that was begun: with its commits, what it learnt, and the deaths it has seen."""
    prefix = records_of(plan.run)
    commits = read_commits(folder, plan.run)
    uploads = open_uploads(folder, plan.layout.partition_by)
    lease.prove()  # so nobody else has begun one of these, or committed it
    lost = _lost_commits(folder, commits, {upload for _, upload in uploads})
    if lost:
        # Compacted records may tell of them; all commits have records of their own as well.
        folder.delete_below(f"{prefix}compacted/")
        folder.delete([commit_name(prefix, commits.pop(shard).part) for shard in lost])
    commits = {**kept, **commits}
    suspects = _count_deaths(folder, prefix, commits, uploads)
    found = folder.get(f"{prefix}probe.json")
    probe = from_bytes(found[0], Probe, folder.url_of(prefix)) if found is not None else None
    return ObjectRun(folder, plan, lease, commits, suspects, probe)


def read_commits(folder: ObjectFolder, run: str) -> dict[int, Commit]:
    """Shard -> its commit, read from compacted records where there are any."""
    prefix = records_of(run)
    names = [entry.key for entry in folder.list(prefix)]
    found: dict[int, Commit] = {}
    stems: set[str] = set()
    for data in folder.get_all(name for name in names if name.startswith(f"{prefix}compacted/")):
        for commit in from_bytes(data, Compacted, folder.url_of(prefix)).commits:
            found.setdefault(commit.shard, commit)
            stems.add(stem_of(commit.part))
    single = [name for name in names if name.startswith(f"{prefix}commits/")]
    missing = [name for name in single if stem_of(name) not in stems]
    for data in folder.get_all(missing):
        commit = from_bytes(data, Commit, folder.url_of(prefix))
        found.setdefault(commit.shard, commit)
    return found


def finish(folder: ObjectFolder, manifest: Manifest, lease: Lease) -> None:
    """What is left to do when a manifest was published: remove what it has replaced, and mark it."""
    prefix = records_of(manifest.run)
    lease.confirm()
    # Side by side: where every request takes its time, a small run would else wait for its end.
    with ThreadPoolExecutor(ASKED_AT_END) as pool:
        asked = pool.submit(folder.get, f"{prefix}replaced.json")
        # Whoever asks for an upload, and never sees the answer, has one that no record tells of.
        opened = pool.submit(open_uploads, folder, manifest.layout.partition_by)
        listed = pool.submit(lambda: [entry.key for entry in folder.list(prefix)])
        under_way = pool.submit(folder.get, UNFINISHED)
    if (replaced := asked.result()) is not None:
        record = json.loads(replaced[0])
        lease.prove()
        folder.delete(record["files"])
        if record["run"] is not None:
            folder.delete_below(records_of(record["run"]))
    # Now a listing shows the result and nothing else. The run's name tells this mark from another's, for
    # whoever removes it.
    lease.confirm()
    folder.put(SUCCESS, manifest.run.encode())
    if uploads := opened.result():
        lease.prove()
        folder.abort(uploads)
    folder.delete([name for name in listed.result() if name != f"{prefix}plan.json"])
    # Last: by it, what is left to do is found again.
    if (found := under_way.result()) is not None and json.loads(found[0])["run"] == manifest.run:
        folder.delete_if(UNFINISHED, found[1])


def read_unfinished(folder: ObjectFolder) -> tuple[str | None, str | None]:
    """The run under way, and one that was given up, of which something may be left."""
    found = folder.get(UNFINISHED)
    record = json.loads(found[0]) if found is not None else {}
    return record.get("run"), record.get("given_up")


def begin(folder: ObjectFolder, plan: PlanRecord, lease: Lease) -> None:
    """Name a run as the one under way: before its records are there, which would else not be found again."""
    named = _unfinished(run=plan.run)
    lease.confirm()
    if folder.create(UNFINISHED, named) is None:
        lease.prove()
        raise AssertionError("another run is under way, although the lease is held")
    lease.confirm()
    folder.put(f"{records_of(plan.run)}plan.json", to_bytes(plan))


def discard(folder: ObjectFolder, run: str, lease: Lease) -> int:
    """Remove an unfinished run, its uploads and records: bytes of the records.

    Parts that are visible, since it died while it was published, go as well. First of all it is marked as
    given up, so that nobody goes on with it, or has done so and finds it removed.
    """
    prefix = records_of(run)
    found = folder.get(UNFINISHED)
    if found is None or run not in json.loads(found[0]).values():
        lease.prove()
        return 0
    mark = folder.swap(UNFINISHED, _unfinished(given_up=run), found[1])
    uploads = open_uploads(folder, _keys_of(folder, prefix))
    lease.prove()  # so nobody else has begun one of these uploads
    if mark is None:
        raise AssertionError(f"{UNFINISHED} was changed, although the lease is held")
    folder.abort(uploads)
    if (complete := folder.get(f"{prefix}manifest.json")) is not None:
        published = folder.get(MANIFEST)
        stay = _files(published[0]) if published is not None else set()
        gone = _files(complete[0]) - stay
        lease.confirm()
        folder.delete(gone)
    size = folder.delete_below(prefix)
    folder.delete_if(UNFINISHED, mark)
    return size


def _unfinished(run: str | None = None, given_up: str | None = None) -> bytes:
    record = {"run": run, "given_up": given_up, "mark": secrets.token_hex(8)}
    return json.dumps(record).encode()


def open_uploads(folder: ObjectFolder, partition_by: Sequence[str]) -> list[tuple[str, str]]:
    """Names and ids of the uploads of this output's own files; others may lie below it, or beside them."""
    return [(name, upload) for name, upload in folder.uploads() if is_ours(name, partition_by)]


def is_ours(name: str, partition_by: Sequence[str]) -> bool:
    """Whether a file of a result that is partitioned by these columns can have a name."""
    return is_part(name, partition_by) or _BESIDE.fullmatch(name) is not None


def _keys_of(folder: ObjectFolder, prefix: str) -> Sequence[str]:
    """What a run partitions its result by; nothing if its plan is gone, and its uploads with it."""
    found = folder.get(f"{prefix}plan.json")
    try:
        plan = from_bytes(found[0], PlanRecord, folder.url_of(prefix)) if found is not None else None
    except StorageError:
        return ()
    return plan.layout.partition_by if plan is not None else ()


def _files(manifest: bytes) -> set[str]:
    return {s.path for c in from_bytes(manifest, Manifest, MANIFEST).commits for s in files_of(c)}


def _lost_commits(folder: ObjectFolder, commits: Mapping[int, Commit], held: Set[str]) -> list[int]:
    """Shards whose uploads aren't open any more, nor completed: by a rule of the bucket's, as a rule."""
    ended = [
        (shard, stored.path, stored.bytes, stored.upload.mark)
        for shard, commit in commits.items()
        for stored in files_of(commit)
        if stored.upload is not None and stored.upload.id not in held
    ]

    def is_lost(file: tuple[int, str, int, str]) -> bool:
        _, path, size, mark = file
        return not folder.s3.is_of(folder.bucket, folder.key(path), size, mark)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        lost = list(pool.map(is_lost, ended))
    return sorted({file[0] for file, gone in zip(ended, lost, strict=True) if gone})


def _count_deaths(
    folder: ObjectFolder, prefix: str, commits: Mapping[int, Commit], uploads: Sequence[tuple[str, str]]
) -> frozenset[int]:
    """Shards that were being scored in at least ENOUGH lives that died. Their uploads are given up."""
    held = {s.upload.id for c in commits.values() for s in files_of(c) if s.upload is not None}
    lost = [(name, upload) for name, upload in uploads if upload not in held]
    found = folder.get(f"{prefix}deaths.json")
    deaths: dict[str, int] = json.loads(found[0]) if found is not None else {}
    for shard in {shard for name, _ in lost if (shard := shard_of(name)) is not None} - commits.keys():
        deaths[str(shard)] = deaths.get(str(shard), 0) + 1
    if lost:
        folder.put(f"{prefix}deaths.json", json.dumps(deaths).encode())
        folder.abort(lost)
    return frozenset(int(shard) for shard, count in deaths.items() if count >= ENOUGH)
