"""Which cores are near a device, as the kernel tells."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from batchonnx.runtime.near import near_cores, stay_near


@pytest.mark.parametrize(
    ("told", "near"),
    [
        ("0-3,8\n", {1, 2, 3, 8}),
        ("8", {8}),
        ("20-23", {1, 2, 3, 8, 9}),  # of those we have none
        ("", {1, 2, 3, 8, 9}),
    ],
)
def test_the_usable_ones_of_those_that_the_kernel_names(told: str, near: set[int]) -> None:
    assert near_cores(told, {1, 2, 3, 8, 9}) == near


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads can't be kept to cores here")
def test_a_worker_and_the_threads_that_it_starts_stay_there_and_no_others(tmp_path: Path) -> None:
    usable = os.sched_getaffinity(0)
    one = max(usable)
    (tmp_path / "0000:3b:00.0").mkdir()
    (tmp_path / "0000:3b:00.0" / "local_cpulist").write_text(f"{one}\n")
    found: list[set[int]] = []

    def work() -> None:
        stay_near("0000:3b:00.0", tmp_path)
        inner = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        inner.start()
        inner.join()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert found == [{one}]
    assert os.sched_getaffinity(0) == usable
