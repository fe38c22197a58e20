"""The machine as this process may use it: CPU, cores, memory, open files, clock."""

from __future__ import annotations

import os
import platform
import re
import resource
import tempfile
import time
from pathlib import Path

from batchonnx.doctor.symptom import Symptom, Symptoms
from batchonnx.report.text import duration, of_bytes, plural
from batchonnx.runtime.cores import cgroup_quotas, usable_cores
from batchonnx.runtime.kernel import CGROUP, own_groups, read_told
from batchonnx.runtime.machine import cpu_flags, cpu_name, memory_limit

LEAST_MEMORY, LEAST_FILES = 1 << 30, 1024
_SHOWN = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "sve")


def check_cpu() -> Symptoms:
    """Its kind, and the instruction sets that ONNX Runtime is fast with."""
    flags = cpu_flags()
    told = ", ".join([cpu_name(), *(flag for flag in _SHOWN if flag in flags)])
    if platform.machine() in ("x86_64", "AMD64") and flags and "avx2" not in flags:
        fix = "use a machine with AVX2 (any since 2015): models are several times slower without"
        yield Symptom("cpu", "hint", f"{told}, no avx2", fix, alike=told)
    else:
        yield Symptom("cpu", "good", told, alike=told)


def check_cores() -> Symptoms:
    """The core budget: what affinity and cgroup really allow."""
    usable, there = usable_cores(), os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quotas = list(cgroup_quotas(own_groups(), CGROUP))
    limits = [f"affinity {affinity}"] if affinity < there else []
    limits += [f"cgroup quota {min(quotas):g}"] if quotas and min(quotas) < there else []
    told = f"{usable} of {plural(there, 'core')}" + (f" ({', '.join(limits)})" if limits else "")
    if quotas and min(quotas) < 1:
        fix = "give the container at least one core: with less, every batch is halted for part of its time"
        yield Symptom("cores", "hint", told, fix, alike=f"{usable}")
    else:
        yield Symptom("cores", "good", told, alike=f"{usable}")


def check_memory() -> Symptoms:
    """What may be used, and what is free of it."""
    limit = memory_limit()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", read_told(Path("/proc/meminfo")), re.MULTILINE)
    free = min(limit, int(found[1]) * 1024) if found else limit
    told = f"{of_bytes(limit)}, {of_bytes(free)} of it free"
    if free < LEAST_MEMORY:
        fix = "end what else runs here, or allow more: a worker takes some chunks of 12 MB beside its model"
        yield Symptom("memory", "hint", told, fix, alike=of_bytes(limit))
    else:
        yield Symptom("memory", "good", told, alike=of_bytes(limit))


def check_files() -> Symptoms:
    """How many files may be open, and whether temporary ones may be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        fix = f"ulimit -n {LEAST_FILES if hard == resource.RLIM_INFINITY else min(LEAST_FILES, hard)}"
        yield Symptom("open files", "hint", f"at most {soft:,}", fix, alike=f"{soft}")
    else:
        told = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,}"
        yield Symptom("open files", "good", told, alike=f"{soft}")


def check_temporary() -> Symptoms:
    """A folder for temporary files."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"doctor")
        yield Symptom("temporary", "good", tempfile.gettempdir())
    except OSError as error:
        told = f"{error.filename or 'no folder'}: {error.strerror or error}"
        yield Symptom("temporary", "bad", told, "set TMPDIR to a folder that may be written")


def check_clock() -> Symptoms:
    """A clock that is behind the files of this very program is wrong."""
    installed = Path(__file__).stat().st_mtime
    now = time.time()
    told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < installed - 60:
        behind = duration(installed - now)
        fix = "set the clock, by NTP for instance: stores refuse requests of another time"
        yield Symptom("clock", "bad", f"{told}, {behind} before batchonnx was installed", fix)
    else:
        yield Symptom("clock", "good", told)
