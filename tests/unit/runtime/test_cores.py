"""The core budget: tables of quotas, trees of cgroups, and what workers get of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.runtime.cores import cgroup_quotas, cores_from, divide_cores, usable_cores


@pytest.mark.parametrize(
    ("affinity", "quotas", "cores"),
    [
        (8, [], 8),
        (8, [2.0], 2),
        (8, [2.5, 4.0], 2),
        (8, [4.0, 2.5], 2),
        (8, [3.999], 3),
        (2, [16.0], 2),
        (4, [0.5], 1),
        (1, [], 1),
    ],
)
def test_the_smallest_limit_counts_rounded_down(affinity: int, quotas: list[float], cores: int) -> None:
    assert cores_from(affinity, quotas) == cores


def test_this_process_has_a_core_and_no_more_than_its_affinity() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_bound_to_one_core_has_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def write(mount: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    return mount


V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"
CGROUPS = {
    "v2, a container's root": ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
    "v2, no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, []),
    "v2, no files at all": ("0::/\n", {}, []),
    "v2, each level counts, the root last": (
        "0::/user/job\n",
        {"user/job/cpu.max": "max 100000", "user/cpu.max": "200000 100000", "cpu.max": "400000 100000"},
        [2.0, 4.0],
    ),
    "v2, the host's path inside a container": (
        "0::/kubepods/pod1/abc\n",
        {"cpu.max": "300000 100000"},
        [3.0],
    ),
    "v2, a path outside the namespace": ("0::/../other\n", {"cpu.max": "100000 100000"}, [1.0]),
    "v1": (
        "4:memory:/box\n3:cpu,cpuacct:/box\n",
        {f"cpu/box/{V1[0]}": "250000", f"cpu/box/{V1[1]}": "100000"},
        [2.5],
    ),
    "v1, no limit": ("1:cpu:/\n", {f"cpu/{V1[0]}": "-1", f"cpu/{V1[1]}": "100000"}, []),
    "v1, the host's path inside a container": (
        "1:cpu:/docker/abc\n",
        {f"cpu/{V1[0]}": "50000", f"cpu/{V1[1]}": "100000"},
        [0.5],
    ),
    "another controller's folder is none of ours": ("1:cpuset:/box\n", {"cpu/box/cpu.max": "1 1"}, []),
    "a file that makes no sense": ("0::/\n", {"cpu.max": "plenty\n"}, []),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_quotas_are_read_up_to_the_root(tmp_path: Path, case: str) -> None:
    groups, files, quotas = CGROUPS[case]
    assert list(cgroup_quotas(groups, write(tmp_path, files))) == quotas


@pytest.mark.parametrize(
    ("cores", "workers", "pieces", "budget"),
    [
        (8, None, 100, (8, 1)),
        (8, None, 3, (3, 2)),
        (8, None, 1, (1, 8)),
        (8, None, 0, (1, 8)),
        (8, 3, 100, (3, 2)),
        (2, 8, 100, (8, 1)),
        (1, None, 100, (1, 1)),
    ],
)
def test_cores_are_shared_among_workers(
    cores: int, workers: int | None, pieces: int, budget: tuple[int, int]
) -> None:
    found = divide_cores(cores, workers, pieces)
    assert (found.workers, found.threads_per_worker) == budget


@given(st.integers(1, 256), st.none() | st.integers(1, 300), st.integers(0, 1000))
def test_workers_and_threads_stay_within_the_cores_unless_more_workers_are_asked_for(
    cores: int, workers: int | None, pieces: int
) -> None:
    budget = divide_cores(cores, workers, pieces)
    assert budget.workers >= 1
    assert budget.threads_per_worker >= 1
    if workers is None:
        assert budget.workers <= max(1, pieces)
    if workers is None or workers <= cores:
        assert budget.workers * budget.threads_per_worker <= cores
