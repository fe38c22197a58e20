"""Which process holds a lease, so that others can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def this_machine() -> str:
    """The running kernel: containers of one machine share it, whatever their host names."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def this_process() -> dict[str, object]:
    """What tells this process from any other, on this machine or another one."""
    pid = os.getpid()
    return {
        "machine": this_machine(),
        "host": socket.gethostname(),
        "processes": _namespace(),
        "pid": pid,
        "born": _born(pid),
    }


def is_dead(record: Mapping[str, object]) -> bool:
    """Whether a process is certainly gone: it was of this machine, and can be looked for here."""
    return _is_there(record) is False


def is_alive(record: Mapping[str, object]) -> bool:
    """Whether a process is certainly there."""
    return _is_there(record) is True


def _is_there(record: Mapping[str, object]) -> bool | None:
    """None where it can't be told: of another machine, or of processes that aren't seen here."""
    pid, born = record.get("pid"), record.get("born")
    is_here = (record.get("machine"), record.get("processes")) == (this_machine(), _namespace())
    if not is_here or not isinstance(pid, int) or not born:
        return None
    return _born(pid) == born


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _born(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty if it is gone, or can't be told.

    The 22nd field of /proc/PID/stat (proc_pid_stat(5)); the second, a name in brackets, may hold blanks.
    A zombie is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
