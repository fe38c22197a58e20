"""How far a run is, and how it went: what views and summaries show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STAGES = ("read", "encode", "predict", "decode", "write")


def slowest_stage(busy_s: Mapping[str, float], *, reads_ahead: bool) -> str | None:
    """The stage that holds workers back: the longest of those that take turns in the busiest thread.

    The longest of all may be none: a writer that works half of its time holds nobody up, though each stage of
    the thread before it takes less. busy_s: stage -> seconds, waits for disk and store included. reads_ahead:
    see `Progress`. None where nothing was done.
    """
    turns = (("read",), STAGES[1:4], STAGES[4:]) if reads_ahead else (STAGES[:4], STAGES[4:])
    busiest = max(turns, key=lambda stages: sum(busy_s.get(stage, 0.0) for stage in stages))
    slowest = max(busiest, key=lambda stage: busy_s.get(stage, 0.0))
    return slowest if busy_s.get(slowest, 0.0) > 0 else None


@dataclass(frozen=True)
class DeviceUse:
    """How a device was used since scoring began.

    busy: share of the time in which it had a batch. utilisation: share of the time in which it computed, and
    memory: the most bytes that were in use, by anyone; both as NVML tells, None where it doesn't.
    memory_total: bytes that it has. is_lost: it has failed on the way.
    """

    name: str
    busy: float
    utilisation: float | None = None
    memory: int | None = None
    memory_total: int | None = None
    is_lost: bool = False


@dataclass(frozen=True)
class Progress:
    """A moment of a run.

    rows_in: rows that this life of the run has done so far, filtered ones included. rows_before: those that
    its former lives had. rows_total: of both and of what is left; None where only reading tells.
    quarantined: bad rows so far.
    busy_s: stage -> seconds that workers have spent in it, summed over all workers. reads_ahead: they read in
    threads of their own, as from a store, beside those that encode, predict and decode.
    hosts: host -> workers there; empty where they are threads of this process. memory: bytes that their
    processes have resident, all together. retries: requests to a store that were sent again. lost: workers
    that died. copied: shards that a second worker was given. devices: of a run on this
    machine, but for the CPU.
    """

    shards: int
    shards_total: int
    rows_in: int
    rows_total: int | None
    elapsed_s: float
    workers: int
    busy_s: Mapping[str, float]
    rows_before: int = 0
    quarantined: int = 0
    reads_ahead: bool = False
    hosts: Mapping[str, int] = field(default_factory=dict)
    memory: int = 0
    retries: int = 0
    lost: int = 0
    copied: int = 0
    devices: tuple[DeviceUse, ...] = ()

    @property
    def rows_done(self) -> int:
        """In all lives of the run."""
        return self.rows_before + self.rows_in


@dataclass(frozen=True)
class RunSummary:
    """A finished run. rows_in == predicted + quarantined + filtered.

    resumed: shards that were done by the run's former lives. kept: parts that were taken over from
    the published result, since their input is unchanged. halved: batches that needed too much
    memory and were scored in pieces. apart: shards that were scored in a process of their own, since
    processes had died over them. is_new: False if the result was there already.
    requests: operation -> requests to a store, retries included. retries: how many were sent again, by
    workers as well. publish_s: from the last commit until the result was there. slowest_stage: the one that
    held workers back; None where nothing was scored.
    cluster_s: until a cluster was started or reached. actors_s: from then until its first worker process was
    there. start_s: until the first worker could be given shards. scoring_s: from then to the last commit;
    each None without a cluster. lost: workers that died. copied: shards that a
    second worker was given, since the first was late or silent.
    device: of the sessions, by the job file's words. devices: as in `Progress`.
    table, table_version: where the parts were added; None where the result is a folder.
    bytes: of all parts. first_row_s: from the run's start to the first predicted batch.
    model_calls: calls of the session, the ones for choosing batch_rows left out.
    """

    job: str
    output: str
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    parts: int
    bytes: int
    elapsed_s: float
    first_row_s: float | None
    busy_s: Mapping[str, float]
    workers: int
    threads_per_worker: int
    batch_rows: int
    model_calls: int
    notes: tuple[str, ...]
    resumed: int = 0
    kept: int = 0
    halved: int = 0
    apart: int = 0
    is_new: bool = True
    publish_s: float | None = None
    engine: str = "local"
    cluster_s: float | None = None
    actors_s: float | None = None
    start_s: float | None = None
    scoring_s: float | None = None
    lost: int = 0
    copied: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)
    table: str | None = None
    table_version: int | None = None
    retries: int = 0
    slowest_stage: str | None = None
    device: str = "cpu"
    devices: tuple[DeviceUse, ...] = ()
