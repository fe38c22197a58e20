"""What commits tell of a run's time: throughput, stages, memory, and the shards that took long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from batchonnx.ledger.records import Commit
from batchonnx.scoring.progress import STAGES, slowest_stage

BINS, FEWEST_BINS = 80, 8
LATE = 2.0
"""A shard that took so many times the median is late."""

LEAST_S = 1e-3
"""Commits tell milliseconds: nothing was done in less."""

SHOWN = 10
DURATION_BINS = 30


@dataclass(frozen=True)
class Timeline:
    """A run in equal pieces of time.

    edges_s: float64[n + 1], seconds from the first shard's begin. rows_per_s: float64[n].
    busy: stage -> float64[n], workers that were busy with it, on average. memory: float64[n], the most bytes
    that one process had resident; NaN where no shard ended. durations_s: float64[shards].
    late: shards that took LATE times the median or more, the worst first, SHOWN at most; late_count: of all.
    stages_s: stage -> seconds, all workers' together. reads_ahead: see `Progress`.
    """

    edges_s: np.ndarray
    rows_per_s: np.ndarray
    busy: Mapping[str, np.ndarray]
    memory: np.ndarray
    durations_s: np.ndarray
    late: tuple[Commit, ...]
    late_count: int
    stages_s: Mapping[str, float]
    reads_ahead: bool

    @property
    def median_s(self) -> float:
        """Of the shards' durations."""
        return float(np.median(self.durations_s))

    @property
    def slowest_stage(self) -> str | None:
        """The stage that held workers back; None where nothing tells."""
        return slowest_stage(self.stages_s, reads_ahead=self.reads_ahead)


def make_timeline(commits: Sequence[Commit]) -> Timeline | None:
    """A run's time by its own commits; None without any."""
    if not commits:
        return None
    ends = np.array([datetime.fromisoformat(commit.at).timestamp() for commit in commits])
    took = np.array([commit.took_s or sum(commit.seconds.values()) for commit in commits])
    begins = np.minimum(_work_begins(commits, ends), ends - LEAST_S)
    origin = float(begins.min())
    begins, ends = begins - origin, ends - origin
    worked = ends - begins
    edges = np.linspace(0.0, float(ends.max()), min(BINS, FEWEST_BINS + len(commits) // 4) + 1)
    width = edges[1] - edges[0]

    def spread(amounts: np.ndarray) -> np.ndarray:
        done = [float((amounts * np.clip((edge - begins) / worked, 0, 1)).sum()) for edge in edges]
        each: np.ndarray = np.diff(done) / width
        return each

    stages = {stage: np.array([commit.seconds.get(stage, 0.0) for commit in commits]) for stage in STAGES}
    memory = np.full(len(edges) - 1, np.nan)
    places = np.minimum((ends / width).astype(int), len(memory) - 1)
    np.fmax.at(memory, places, np.array([commit.memory or np.nan for commit in commits], float))
    late = np.flatnonzero(took >= LATE * np.median(took)) if len(commits) > 2 else np.empty(0, int)
    worst = late[np.argsort(-took[late], kind="stable")][:SHOWN]
    return Timeline(
        edges_s=edges,
        rows_per_s=spread(np.array([commit.rows_in for commit in commits], float)),
        busy={stage: spread(seconds) for stage, seconds in stages.items()},
        memory=memory,
        durations_s=took,
        late=tuple(commits[i] for i in worst),
        late_count=len(late),
        stages_s={stage: float(seconds.sum()) for stage, seconds in stages.items()},
        reads_ahead=any("://" in source.path for commit in commits for source in commit.sources),
    )


def _work_begins(commits: Sequence[Commit], ends: np.ndarray) -> np.ndarray:
    """float64[shards], Unix seconds: since when a worker did what its commit tells of.

    That is its commit before; but for its first, whose stages give a hint.
    """
    begins = np.empty(len(commits))
    last: dict[tuple[str, str], float] = {}
    for i in np.argsort(ends, kind="stable"):
        commit = commits[i]
        hint = ends[i] - max(commit.took_s, max(commit.seconds.values(), default=0.0))
        begins[i] = last.get((commit.host, commit.worker), hint) if commit.worker else hint
        last[commit.host, commit.worker] = ends[i]
    return begins
