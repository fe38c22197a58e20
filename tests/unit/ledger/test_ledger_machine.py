"""The ledger driven at random, dying anywhere, beside a model of what must hold.

A death is raised by Python's audit hook just before a step on the file system, and every later step of
that life dies too: no `finally` tidies up, as after a kill -9.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchonnx.errors import ChangedError
from batchonnx.ledger.publish import publish, settle_former
from batchonnx.ledger.records import (
    Commit,
    Manifest,
    PlanRecord,
    ShardRecord,
    SourceRows,
    StoredFile,
    read_record,
)
from batchonnx.ledger.run_folder import (
    MANIFEST,
    PLAN,
    SUCCESS,
    RunFolder,
    adopt,
    attempt_path,
    commit,
    complete,
    files_of,
    open_run,
    read_manifest,
    staged_path,
    staging_of,
)
from batchonnx.parts.layout import part_name as name_of
from tests.chaos.dying import EVENTS, EXCHANGE, paths

SHARDS = range(4)


class Death(BaseException):
    """The process is killed here."""


class _Fate:
    """When the life under test ends. An audit hook can't be removed: this one is told to be still."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.steps_left = 0
        sys.addaudithook(self._watch)

    @contextmanager
    def dying(self, folder: Path, steps: int | None) -> Iterator[None]:
        """Die before the step of this number; None: live."""
        if steps is None:
            yield
            return
        self.folder, self.steps_left = str(folder), steps
        try:
            yield
        finally:
            self.folder = None

    def _watch(self, event: str, args: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        is_exchange = event == "ctypes.dlsym" and EXCHANGE in args
        if is_exchange or (event in EVENTS and any(path.startswith(self.folder) for path in paths(args))):
            self.steps_left -= 1
            if self.steps_left < 0:
                raise Death


FATE = _Fate()
DEATHS = st.none() | st.integers(0, 12) | st.integers(0, 60)
LATE_DEATHS = st.none() | st.integers(0, 30) | st.integers(20, 70)
OFTEN, RARELY = st.sampled_from([True, True, True, False]), st.sampled_from([False, False, False, True])


def content(version: int, shard: int) -> bytes:
    return f"version {version}, shard {shard}\n".encode() * 3


def has_bad_rows(shard: int) -> bool:
    return shard % 2 == 1


class LedgerMachine(RuleBasedStateMachine):
    """certain: shards whose commit was confirmed; maybe: those that a death may have left committed.

    is_begun: there was an attempt to open a run that isn't published.
    """

    @initialize()
    def begin_empty(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.output = self.folder / "out"
        self.published: Manifest | None = None
        self.run: RunFolder | None = None
        self.is_begun = False
        self.kept: dict[int, Commit] = {}
        self.certain: set[int] = set()
        self.maybe: set[int] = set()
        self.first: dict[int, Commit] = {}
        self.names = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @precondition(lambda self: self.run is None)
    @rule(version=st.integers(1, 3), steps=DEATHS, fresh=RARELY, keeps=st.booleans(), again=OFTEN)
    def open(self, version: int, steps: int | None, fresh: bool, keeps: bool, again: bool) -> None:
        """What `run` begins with: an unfinished run of the same plan goes on, another one is refused."""
        unfinished = self.unfinished()
        if again and unfinished is not None:
            version, keeps = int(unfinished.identity["model"]), unfinished.since is not None
        if self.published is not None and self.published.model == str(version):
            return  # see `find_it_done`
        self.is_begun = True
        kept = {}
        if keeps and self.published is not None:
            former = {record.shard: record for record in self.published.commits if record.shard < 2}
            kept = {shard: self.adopted(record, version) for shard, record in former.items()}
        plan = self.make_plan(version, kept)
        is_same = unfinished is not None and is_like(unfinished, plan)
        try:
            with FATE.dying(self.folder, steps):
                settle_former(self.output)
                run = open_run(self.output, plan, kept, fresh=fresh)
        except Death:
            if fresh or not is_same:
                self.maybe |= self.certain if unfinished is not None else set()
                self.certain = set() if fresh else self.certain
            return
        except ChangedError:
            assert unfinished is not None
            assert not is_same
            assert not fresh
            event("refused")
            return
        assert unfinished is None or is_same or fresh
        found = set(run.commits) - set(kept)
        if fresh or unfinished is None:
            assert found == set()
        else:
            assert self.certain <= found <= self.certain | self.maybe
            assert run.plan == unfinished
            event(f"went on with {len(found)} shards")
        for shard in found:
            self.require_staged(run, run.commits[shard])
        self.run, self.kept, self.certain, self.maybe = run, kept, found, set()
        self.first = {shard: run.commits[shard] for shard in found}

    @precondition(lambda self: self.run is None and self.published is not None)
    @rule(steps=DEATHS)
    def find_it_done(self, steps: int | None) -> None:
        """The driver finds the result of this plan; what is left of a former one goes."""
        with suppress(Death), FATE.dying(self.folder, steps):
            settle_former(self.output)
            names = {path.name for path in self.folder.iterdir()}
            event("found done")
            assert names == {"out"} | ({staging_of(self.output).name} & names if self.is_begun else set())

    @precondition(lambda self: self.run is not None)
    @rule()
    def score_what_is_missing(self) -> None:
        for shard in SHARDS:
            if shard not in self.certain:
                self.score(shard, None)

    @precondition(lambda self: self.run is not None)
    @rule(shard=st.sampled_from(SHARDS), steps=DEATHS)
    def score(self, shard: int, steps: int | None) -> None:
        """One attempt at a shard; of several, the first that was confirmed counts."""
        assert self.run is not None
        if shard in self.kept or (self.run.path / MANIFEST).exists():
            return  # nothing is left to score, and nobody does
        record = self.make_commit(shard)
        try:
            with FATE.dying(self.folder, steps):
                for stored, path in zip(files_of(record), self.attempt_files(record), strict=True):
                    path.write_bytes(content(self.version, shard)[: stored.bytes])
                counted = commit(self.run.path, record)
        except Death:
            if shard not in self.certain:
                self.maybe.add(shard)
            self.run = None
            return
        assert counted == self.first.setdefault(shard, record)
        self.require_staged(self.run, counted)
        self.certain.add(shard)

    @precondition(lambda self: self.run is not None and self.certain | set(self.kept) == set(SHARDS))
    @rule(steps=LATE_DEATHS)
    def finish(self, steps: int | None) -> None:
        """Complete the run and publish it."""
        assert self.run is not None
        manifest = self.make_manifest()
        try:
            with FATE.dying(self.folder, steps):
                complete(self.run.path, manifest, self.output, self.kept_pairs())
                publish(self.run.path, self.output, manifest, overwrite=True)
        except Death:
            found = read_manifest(self.output)
            assert found in (self.published, manifest)
            event("died before it was published" if found != manifest else "died after it was published")
        else:
            found = read_manifest(self.output)
            assert found == manifest
            assert [path.name for path in self.folder.iterdir()] == ["out"]
            event(f"published {'in exchange' if self.published else ''}, {len(self.kept)} kept")
        self.run = None
        if found == manifest:
            self.published, self.certain, self.maybe, self.is_begun = manifest, set(), set(), False

    @precondition(lambda self: self.run is not None)
    @rule()
    def die(self) -> None:
        """Between two steps of the ledger."""
        self.run = None

    @precondition(lambda self: self.run is None and bool(self.certain))
    @rule(draw=st.randoms(use_true_random=False), is_cut=st.booleans())
    def lose_a_part(self, draw, is_cut: bool) -> None:  # type: ignore[no-untyped-def]
        """The disk has lost a file, or half of it."""
        folder = staging_of(self.output)
        shard = draw.choice(sorted(self.certain))
        stored = draw.choice(files_of(self.first[shard]))
        for path in (staged_path(folder, stored), folder / stored.path):
            if path.exists():
                path.write_bytes(path.read_bytes()[:-1]) if is_cut else path.unlink()
        self.certain.remove(shard)

    @invariant()
    def a_reader_sees_all_of_the_published_run_and_nothing_else(self) -> None:
        if not hasattr(self, "folder"):
            return
        if self.published is None:
            assert not self.output.exists()
            return
        assert (self.output / SUCCESS).exists()
        visible = {path.name: path.read_bytes() for path in self.output.glob("*.parquet")}
        expected = {record.part: content_of(record) for record in self.published.commits}
        assert visible == expected
        for record in self.published.commits:
            if record.quarantine is not None:
                assert (self.output / record.quarantine.path).read_bytes() == content_of(record)

    @property
    def version(self) -> int:
        assert self.run is not None
        return int(self.run.plan.identity["model"])

    def unfinished(self) -> PlanRecord | None:
        """The plan of an unfinished run on the disk; not that of a result that was replaced."""
        folder = staging_of(self.output)
        if not (folder / PLAN).exists():
            assert not self.certain
            return None
        plan = read_record(folder / PLAN, PlanRecord)
        is_former = self.published is not None and self.published.replaces == plan.run
        return None if is_former and (folder / SUCCESS).exists() else plan

    def require_staged(self, run: RunFolder, record: Commit) -> None:
        for stored in files_of(record):
            assert staged_path(run.path, stored).read_bytes() == content_of(record)

    def attempt_files(self, record: Commit) -> Iterator[Path]:
        assert self.run is not None
        for kind in ("part", "quarantine")[: len(files_of(record))]:
            yield attempt_path(self.run.path, record.attempt, kind)

    def adopted(self, record: Commit, version: int) -> Commit:
        return adopt(record, f"{version:08x}")

    def kept_pairs(self) -> list[tuple[Commit, Commit]]:
        former = {record.shard: record for record in self.published.commits} if self.published else {}
        return [(former[shard], record) for shard, record in self.kept.items()]

    def next_name(self) -> str:
        self.names += 1
        return f"{self.names:08x}"

    def make_plan(self, version: int, kept: dict[int, Commit]) -> PlanRecord:
        identity = {"model": str(version)}
        since = self.published.run if kept and self.published is not None else None
        shards = tuple(ShardRecord(n, part_name(version, n), ()) for n in SHARDS if n not in kept)
        return PlanRecord(
            self.next_name(), "0", "now", {}, "/", identity, str(version), {}, 0, since, tuple(kept), shards
        )

    def make_commit(self, shard: int) -> Commit:
        data = content(self.version, shard)
        digest = hashlib.sha256(data).hexdigest()
        name = part_name(self.version, shard)
        part = StoredFile(name, 3, len(data), digest)
        path = f"_batchonnx/quarantine/{Path(name).stem}.quarantine"
        quarantine = StoredFile(path, 3, len(data), digest) if has_bad_rows(shard) else None
        sources = (SourceRows("in", (shard,), 0, 3),)
        tried = self.next_name()
        parts = (part,)
        version = f"v{self.version}"
        return Commit(shard, tried, version, 3, 3, 0, 0, name, parts, quarantine, sources, 1, 3, {})

    def make_manifest(self) -> Manifest:
        assert self.run is not None
        replaces = self.published.run if self.published is not None else None
        commits = tuple({**self.kept, **{shard: self.first[shard] for shard in self.certain}}.values())
        plan, model = self.run.plan, str(self.version)
        return Manifest(plan.run, plan.fingerprint, model, replaces, 0, 0, 0, 0, 1, None, (), (), commits)


def content_of(record: Commit) -> bytes:
    return content(int(record.at[1:]), record.shard)


def part_name(version: int, shard: int) -> str:
    return name_of(shard, f"{version:08x}")


def is_like(one: PlanRecord, other: PlanRecord) -> bool:
    return (one.identity, one.since) == (other.identity, other.since)


LENGTH = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class TestLedger(LedgerMachine.TestCase):
    settings = LENGTH


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestLedgerAtLength(LedgerMachine.TestCase):
    settings = settings(LENGTH, max_examples=150)


@settings(max_examples=100, deadline=None)
@given(step=st.integers(0, 60))
def test_whichever_step_of_an_exchange_is_the_last_only_the_result_is_left(step: int) -> None:
    machine = LedgerMachine()
    machine.begin_empty()
    for version, last in ((1, None), (2, step)):
        machine.open(version, None, fresh=False, keeps=False, again=False)
        machine.score_what_is_missing()
        machine.finish(last)
    machine.a_reader_sees_all_of_the_published_run_and_nothing_else()
    if machine.published is not None and machine.published.model == "2":
        machine.find_it_done(None)
    machine.teardown()
