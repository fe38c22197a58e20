"""Results in an S3 bucket: a manifest says which objects they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pyarrow as pa

from batchonnx.errors import BatchonnxError, OutputExistsError, Problem, StorageError
from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.object_lease import LEASE, ObjectLease
from batchonnx.ledger.object_run import (
    MANIFEST,
    SUCCESS,
    UNFINISHED,
    ObjectRun,
    begin,
    discard,
    finish,
    is_ours,
    open_again,
    open_uploads,
    read_commits,
    read_unfinished,
)
from batchonnx.ledger.object_scoring import RECORDS, records_of
from batchonnx.ledger.output import NONE, Cleared, Run
from batchonnx.ledger.preflight import check_store
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, files_of, from_bytes
from batchonnx.ledger.run_folder import require_same
from batchonnx.parts.layout import looks_like_part
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import HIDDEN_FROM_TABLES
from batchonnx.storage.ranged import Piece, RangedFile
from batchonnx.storage.s3 import S3Object
from batchonnx.storage.spans import sequential

SHOWN = 5


class StoreOutput:
    """A folder of a bucket; see `output.Output`."""

    def __init__(self, folder: ObjectFolder, is_trusted: bool = False) -> None:
        self._folder, self._is_trusted = folder, is_trusted
        self.path = self._folder.url
        self._lease: ObjectLease | None = None
        self._sizes: dict[str, int] | None = None

    def hold_lease(self, on_lost: Callable[[], None]) -> AbstractContextManager[None]:
        """An object that is changed by compare-and-swap; see `object_lease`."""

        @contextmanager
        def held() -> Iterator[None]:
            with ObjectLease(self._folder, on_lost) as lease:
                with ThreadPoolExecutor(1) as pool:
                    looked = pool.submit(self._list)  # in the time that the questions to the store take
                    check_store(self._folder, is_trusted=self._is_trusted)
                    looked.result()
                self._lease = lease
                yield

        return held()

    def settle(self) -> None:
        """Finish a publication whose manifest is there."""
        if not {MANIFEST, UNFINISHED} <= self._list().keys():
            return
        manifest = self._readable_manifest()
        if manifest is not None and self._unfinished_run() == manifest.run:
            assert self._lease is not None, "what a run left is brought in order under the lease"
            finish(self._folder, manifest, self._lease)
            self._sizes = None

    def check(self, overwrite: bool) -> None:
        """Only a former result may be replaced."""
        facts = {"output": self.path}
        ours = (f"{RECORDS}/", SUCCESS)  # and parts of a publication that died half-way
        names = [name for name in self._list() if not name.startswith(ours) and not looks_like_part(name)]
        if MANIFEST not in self._list():
            if names:
                facts["found"] = ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
                fix = "name another folder; batchonnx replaces nothing but its own results"
                raise OutputExistsError(Problem("the output folder holds other files", facts, fix))
            return
        if not overwrite:
            fix = "set output.overwrite: true (or run --overwrite) to replace it, or name another folder"
            raise OutputExistsError(Problem("the output holds another run's result", facts, fix))

    def read_manifest(self) -> Manifest | None:
        """One object tells all."""
        found = self._folder.get(MANIFEST)
        return from_bytes(found[0], Manifest, self._folder.url_of(MANIFEST)) if found is not None else None

    def read_plan(self, manifest: Manifest) -> PlanRecord:
        """Among the records of the run that the manifest names."""
        name = f"{records_of(manifest.run)}plan.json"
        found = self._folder.get(name)
        if found is None:
            facts = {"record": self._folder.url_of(name), "found": "no such object"}
            fix = "restore the object, or score again: run with --fresh"
            raise StorageError(Problem("the result's plan is gone", facts, fix))
        return from_bytes(found[0], PlanRecord, self._folder.url_of(name))

    def holds(self, record: Commit) -> bool:
        """By one listing for all."""
        return all(self._list().get(stored.path) == stored.bytes for stored in files_of(record))

    def adopt(self, record: Commit, fingerprint: str) -> Commit:
        """As it is: no object is ever copied or renamed."""
        return record

    def open_run(self, plan: PlanRecord, kept: Mapping[int, Commit] = NONE, *, fresh: bool = False) -> Run:
        """One run is under way at a time: `unfinished.json` names it."""
        assert self._lease is not None, "a run is opened under the lease"
        under_way, given_up = read_unfinished(self._folder)
        begun = self._plan_of(under_way) if under_way is not None and not fresh else None
        if begun is not None:
            require_same(begun, plan, self._folder.url_of(records_of(begun.run)))
            return open_again(self._folder, begun, self._lease, kept)
        if (useless := under_way or given_up) is not None:
            discard(self._folder, useless, self._lease)
        begin(self._folder, plan, self._lease)
        return ObjectRun(self._folder, plan, self._lease, kept)

    def waiting(self) -> tuple[Run, Manifest] | None:
        """A run that has its manifest."""
        assert self._lease is not None, "a run is opened under the lease"
        run = self._unfinished_run()
        plan = self._plan_of(run) if run is not None else None
        if run is None or plan is None:
            return None
        name = f"{records_of(run)}manifest.json"
        found = self._folder.get(name)
        if found is None:
            return None
        manifest = from_bytes(found[0], Manifest, self._folder.url_of(name))
        return ObjectRun(self._folder, plan, self._lease, NONE), manifest

    def unfinished(self) -> str | None:
        """Where the run's records are."""
        run = self._unfinished_run()
        return self._folder.url_of(records_of(run)) if run is not None else None

    def open(self, path: str) -> pa.NativeFile:
        """Read in pieces, as it is asked for."""
        url, found = self._folder.url_of(path), self._folder.head(path)
        if found is None:
            raise FileNotFoundError(url)
        entry = FileEntry(url, found.size, found.etag)
        return pa.PythonFile(RangedFile(entry, map(Piece, sequential(0, found.size)), StorageError), mode="r")

    def is_marked(self) -> bool:
        """By the object's being there."""
        return self._folder.head(SUCCESS) is not None

    def visible(self) -> Iterator[str]:
        """Without what lies below a name that begins with a dot or an underscore."""
        names = (entry.key for entry in self._folder.list())
        yield from sorted(
            name for name in names if not any(part.startswith(HIDDEN_FROM_TABLES) for part in name.split("/"))
        )

    def clean(self) -> Iterator[Cleared]:
        """Uploads without a commit, records that neither result nor unfinished run needs, stray parts."""
        assert self._lease is not None, "an output is cleaned under the lease"
        self.settle()
        manifest = self.read_manifest()
        under_way, given_up = read_unfinished(self._folder)
        if under_way is not None and self._plan_of(under_way) is None:
            under_way, given_up = None, under_way
        if given_up is not None:
            size = discard(self._folder, given_up, self._lease)
            yield Cleared("a run that was given up", self._folder.url_of(records_of(given_up)), size)
        commits = read_commits(self._folder, under_way) if under_way is not None else {}
        held = {s.upload.id for c in commits.values() for s in files_of(c) if s.upload is not None}
        keys = self._partition_columns(manifest, under_way)
        found = {one for columns in keys for one in open_uploads(self._folder, columns)}
        for name, upload in sorted(found):
            if upload not in held:
                self._folder.abort([(name, upload)])
                yield Cleared("an upload that no run needs", self._folder.url_of(name), None)
        yield from self._clean_records(manifest.run if manifest is not None else None, under_way)
        if under_way is None:
            yield from self._clean_parts(manifest)

    def _clean_records(self, published: str | None, under_way: str | None) -> Iterator[Cleared]:
        """Of runs that are gone; and what a writer that slept has left of the published one."""
        prefix = f"{RECORDS}/runs/"
        plan = f"{records_of(published)}plan.json" if published is not None else None
        useless: dict[str, list[S3Object]] = {}
        for entry in self._folder.list(prefix):
            run = entry.key[len(prefix) :].split("/")[0]
            if run != under_way and entry.key != plan:
                useless.setdefault(run, []).append(entry)
        for run, entries in sorted(useless.items()):
            self._folder.delete([entry.key for entry in entries])
            size = sum(entry.size for entry in entries)
            yield Cleared("records that no run needs", self._folder.url_of(records_of(run)), size)

    def _clean_parts(self, manifest: Manifest | None) -> Iterator[Cleared]:
        """Parts that no manifest tells of: of a publication that died and was then given up."""
        counted = {s.path for c in manifest.commits for s in files_of(c)} if manifest is not None else set()
        keys = manifest.layout.partition_by if manifest is not None else ()
        for entry in list(self._folder.list()):
            if is_ours(entry.key, keys) and entry.key not in counted:
                self._folder.delete([entry.key])
                yield Cleared("a file that no result tells of", self._folder.url_of(entry.key), entry.size)

    def _partition_columns(self, manifest: Manifest | None, under_way: str | None) -> set[tuple[str, ...]]:
        plan = self._plan_of(under_way) if under_way is not None else None
        return {one.layout.partition_by for one in (manifest, plan) if one is not None} or {()}

    def _readable_manifest(self) -> Manifest | None:
        try:
            return self.read_manifest()
        except BatchonnxError:
            return None  # whoever may replace it will

    def _unfinished_run(self) -> str | None:
        return read_unfinished(self._folder)[0]

    def _plan_of(self, run: str) -> PlanRecord | None:
        """None if it is gone: of a run that was discarded, or died before it was written."""
        name = f"{records_of(run)}plan.json"
        found = self._folder.get(name)
        return from_bytes(found[0], PlanRecord, self._folder.url_of(name)) if found is not None else None

    def _list(self) -> dict[str, int]:
        """Names and sizes as they were at first asking; the lease itself is left out."""
        if self._sizes is None:
            self._sizes = {entry.key: entry.size for entry in self._folder.list() if entry.key != LEASE}
        return self._sizes
