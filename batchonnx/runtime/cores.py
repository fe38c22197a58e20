"""The core budget: how many cores this process may really use, and how workers share them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from batchonnx.runtime.kernel import CGROUP, group_folders, own_groups


@dataclass(frozen=True)
class CoreBudget:
    """workers x threads_per_worker is at most the cores there are, and at least one each."""

    workers: int
    threads_per_worker: int


def usable_cores() -> int:
    """Cores by affinity and cgroup quota (v1 and v2), at least 1; the host's count means nothing."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores_from(affinity, cgroup_quotas(own_groups(), CGROUP))


def cores_from(affinity: int, quotas: Iterable[float]) -> int:
    """The smallest of affinity and quotas (in cores), rounded down, at least 1."""
    return max(1, int(min([float(affinity), *quotas])))


def divide_cores(cores: int, workers: int | None, pieces: int) -> CoreBudget:
    """Workers and threads for each. workers: as asked; None: one for each core. Never more than
    there are pieces of work."""
    count = min(cores if workers is None else workers, max(1, pieces))
    return CoreBudget(count, max(1, cores // count))


def cgroup_quotas(groups: str, mount: Path) -> Iterator[float]:
    """Every limit, in cores, on the way from a process's cgroup up to the root; see `group_folders`."""
    for folder, is_unified in group_folders(groups, mount, "cpu"):
        if (quota := (_quota_v2 if is_unified else _quota_v1)(folder)) is not None:
            yield quota


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
