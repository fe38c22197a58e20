"""The seam between a run and where its result lies: a local folder, or a store of objects.

Driver, workers and proofs know these two alone. What both kinds promise is the same; what a reader can
see in between differs, and is told in docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, Protocol

import pyarrow as pa

from batchonnx.ledger.records import Commit, Manifest, PlanRecord, Probe, StoredFile

Kept = Sequence[tuple[Commit, Commit]]
"""What a run takes over from the published result: each commit as that tells of it, and as the run does."""

NONE: Mapping[int, Commit] = MappingProxyType({})


@dataclass(frozen=True)
class Cleared:
    """What was removed because no run needs it. bytes: None where the store doesn't tell."""

    what: str
    path: str
    bytes: int | None


class Staged(Protocol):
    """A file of an attempt, while it is written."""

    @property
    def sink(self) -> BinaryIO:
        """What it is written into."""
        ...

    def finish(self, rows: int) -> StoredFile:
        """Have what was written on the disk or in the store, for good. Raises StorageError or OSError."""
        ...

    def abandon(self) -> None:
        """Remove it: it will never count."""
        ...


class Scoring(Protocol):
    """What a worker needs of a run. Every method raises StorageError where disk or store refuses.

    where: for messages. keeps_measured: whether an attempt has to stage the gate's columns as well
    (kind: measured), since parts can't be read before they are published.
    suspects: shards that saw processes die.
    """

    where: str
    keeps_measured: bool

    @property
    def suspects(self) -> Container[int]:
        """They may become more while the run goes on."""
        ...

    def start(self, shard: int, part: str) -> None:
        """Note, so that it outlives the process, that a shard is being scored."""
        ...

    def end(self) -> None:
        """Note that all scoring here has ended, with no worse than an error that was told."""
        ...

    def stage(self, attempt: str, kind: str, path: str) -> Staged:
        """A new file of an attempt. path: of the file in the result.

        kind: tells an attempt's files apart: part, part-1, … (see `run_folder.part_kind`), quarantine,
        order or measured.
        """
        ...

    def commit(self, record: Commit) -> Commit:
        """Make an attempt's files count, unless another's do already; gives the one that counts."""
        ...


class Ticket(Protocol):
    """An admission to a run for workers in other processes; small, and made to be pickled."""

    def enter(self, suspects: Container[int]) -> Scoring:
        """Take part in the run, until this process ends.

        Raises OutputBusyError if it is another one's turn by now, StorageError.
        """
        ...


class Run(Scoring, Protocol):
    """An unfinished run. Every method raises StorageError where disk or store refuses.

    commits: shard -> what counts already, from this run's earlier lives or kept from the run before.
    probe: what the first rows taught, if that is known.
    """

    plan: PlanRecord
    commits: Mapping[int, Commit]
    suspects: frozenset[int]
    probe: Probe | None

    def ticket(self) -> Ticket:
        """For workers in other processes; void once another life of this run, or another run, begins."""
        ...

    def take_note(self, record: Commit) -> None:
        """A worker in another process has committed this."""
        ...

    def keep_probe(self, probe: Probe) -> None:
        """Have the run's next life do as the first rows have taught."""
        ...

    def read_staged(self, record: Commit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns, of the gate's, of a shard that counts, before it is published. Raises OSError, too."""
        ...

    def complete(self, manifest: Manifest, kept: Kept) -> None:
        """Keep the manifest: nothing is missing but to publish."""
        ...

    def publish(self, manifest: Manifest, overwrite: bool) -> None:
        """Make the complete run the result.

        Raises OutputExistsError if something else has appeared at the output meanwhile.
        """
        ...

    def discard_if_empty(self) -> None:
        """Remove what the run left, unless something of it counts."""
        ...


class Output(Protocol):
    """Where a result is published. Every method raises StorageError where disk or store refuses."""

    path: str

    def hold_lease(self, on_lost: Callable[[], None]) -> AbstractContextManager[None]:
        """Be the one who writes here, until the block ends.

        on_lost: called, from another thread, if somebody else has taken the lease over.
        Raises OutputBusyError naming who holds it.
        """
        ...

    def settle(self) -> None:
        """Bring what a publication that died has left in order. The lease is held."""
        ...

    def check(self, overwrite: bool) -> None:
        """Refuse an output that holds something, unless it is a former result that may be replaced.

        Raises OutputExistsError.
        """
        ...

    def read_manifest(self) -> Manifest | None:
        """The published result's; None if there is none."""
        ...

    def read_plan(self, manifest: Manifest) -> PlanRecord:
        """The plan of the published result. Raises StorageError if it is gone."""
        ...

    def holds(self, record: Commit) -> bool:
        """Whether the published result has every file of a commit, with its size."""
        ...

    def adopt(self, record: Commit, fingerprint: str) -> Commit:
        """A commit of the published result as the run of this fingerprint will tell of it."""
        ...

    def open_run(self, plan: PlanRecord, kept: Mapping[int, Commit] = NONE, *, fresh: bool = False) -> Run:
        """Go on with the output's unfinished run, or begin one. The lease is held.

        kept: shard -> commits of the published result that the plan takes over as they are.
        fresh: begin one whatever is there. Raises ChangedError with the differences if the unfinished
        run is another one's.
        """
        ...

    def waiting(self) -> tuple[Run, Manifest] | None:
        """A complete run that isn't published, with its manifest."""
        ...

    def unfinished(self) -> str | None:
        """Where the output's unfinished run lies, for messages; None if there is none."""
        ...

    def open(self, path: str) -> pa.NativeFile:
        """A file of the published result. Raises FileNotFoundError, OSError, StorageError."""
        ...

    def is_marked(self) -> bool:
        """Whether `_SUCCESS` is there."""
        ...

    def visible(self) -> Iterator[str]:
        """Names that a reader of the folder would take for predictions, sorted."""
        ...

    def clean(self) -> Iterator[Cleared]:
        """Remove what crashes have left and no run needs, as the caller goes on. The lease is held."""
        ...
