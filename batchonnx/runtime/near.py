"""Cores near a GPU: those from which its memory is reached without crossing to another socket."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from batchonnx.runtime.kernel import read_told

PCI = Path("/sys/bus/pci/devices")


def stay_near(bus: str, devices: Path = PCI) -> None:
    """Keep this thread, and those that it will start, to the cores near a device.

    bus: its address on the PCI bus. Does nothing where the kernel doesn't tell, or leaves us no such core.
    """
    if hasattr(os, "sched_setaffinity"):
        usable = os.sched_getaffinity(0)
        near = near_cores(read_told(devices / bus / "local_cpulist"), usable)
        if near != usable:
            os.sched_setaffinity(0, near)


def near_cores(told: str, usable: Collection[int]) -> frozenset[int]:
    """Those of the usable cores that are near; all where none is. told: near ones, in the kernel's way."""
    return frozenset(_numbers(told.strip())) & frozenset(usable) or frozenset(usable)


def _numbers(told: str) -> Iterator[int]:
    """0-3,8."""
    for part in filter(None, told.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
