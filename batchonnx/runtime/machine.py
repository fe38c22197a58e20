"""The machine that this process is on: its kind of CPU, and memory as it is really allowed."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from batchonnx.runtime.kernel import CGROUP, group_folders, own_groups, read_told

_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_name() -> str:
    """What the CPU calls itself; its architecture where it doesn't."""
    found = re.search(r"^model name\s*:\s*(.+)$", read_told(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets by the kernel's names (avx2, avx512f, asimd, …); empty where it doesn't tell."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", read_told(Path("/proc/cpuinfo")), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def cpu_kind() -> str:
    """Architecture, widest vectors: "x86_64 avx512f". Weights laid out for one kind are wrong on others."""
    widest = next((flag for flag in ("avx512f", "avx2", "avx") if flag in cpu_flags()), "")
    return f"{platform.machine()} {widest}".strip()


def resident_bytes() -> int:
    """Memory of this process that is resident now; the most there was, where the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 it is read for every shard
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process has had resident.

    Of getrusage alone, whoever has started it counts as well: a child has its memory until it runs a program.
    """
    told = re.search(r"^VmHWM:\s+(\d+) kB", read_told(Path("/proc/self/status")), re.MULTILINE)
    if told is not None:
        return int(told[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def memory_limit() -> int:
    """Bytes that this process may use: the machine's, or what its cgroup allows if that is less."""
    machine = _PAGE * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *cgroup_limits(own_groups(), CGROUP)])


def cgroup_limits(groups: str, mount: Path) -> Iterator[int]:
    """Every limit, in bytes, on the way from a process's cgroup up to the root; see `group_folders`."""
    for folder, is_unified in group_folders(groups, mount, "memory"):
        name = "memory.max" if is_unified else "memory.limit_in_bytes"
        if (limit := read_told(folder / name).strip()).isdigit():
            yield int(limit)
