"""Workers of other processes hold a shared lock for as long as they may write to a run's folder.

A driver that dies leaves workers behind for a moment; one of them that slept, longer. The next run waits
until the kernel says that they are gone, before it looks at what they have left; who comes late finds
another file, and stays out.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from batchonnx.errors import OutputBusyError, Problem
from batchonnx.ledger.disk import disk_error

LEAVE_S = 40.0
"""How long the workers of a dead driver may take to end: Ray needs up to 15 s to notice a machine's death."""

LOOK_S = 0.1


@dataclass(frozen=True)
class Crew:
    """Those who were let in by one driver. name: no two are called alike."""

    path: Path
    name: str

    def join(self) -> int:
        """Hold the lock until this process ends: the handle that keeps it.

        Raises OutputBusyError if the driver isn't the run's any more, StorageError.
        """
        try:
            handle = os.open(self.path, os.O_RDWR)
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.pread(handle, 64, 0).decode() == self.name and _is_at(self.path, handle):
                return handle
            os.close(handle)
        except (FileNotFoundError, BlockingIOError):
            pass
        except OSError as error:
            raise disk_error(error, self.path) from error
        facts = {"workers": str(self.path), "process": str(os.getpid())}
        fix = "nothing: another run has begun meanwhile, which has workers of its own"
        raise OutputBusyError(Problem("this worker's run has ended", facts, fix))


def crew_path(output: Path) -> Path:
    """Beside the output, as its lease."""
    return output.with_name(f".{output.name}.batchonnx-workers")


def call_crew(output: Path) -> Crew:
    """Open a run's folder to workers in other processes. The lease is held. Raises StorageError."""
    path, name = crew_path(output), secrets.token_hex(8)
    try:
        with path.open("xb") as file:
            file.write(name.encode())
    except OSError as error:
        raise disk_error(error, path) from error
    return Crew(path, name)


def outlast_crew(output: Path, within_s: float = LEAVE_S) -> bool:
    """Wait until no worker of another process is left, and let no more in. Whether that came to be.

    Raises StorageError.
    """
    path = crew_path(output)
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        end = time.monotonic() + within_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(LOOK_S)
            else:
                path.unlink(missing_ok=True)
                return True
    finally:
        os.close(handle)


def require_no_crew(output: Path) -> None:
    """Raises OutputBusyError if workers of a former driver don't end, StorageError."""
    if outlast_crew(output):
        return
    facts = {"workers": str(crew_path(output)), "waited": f"{LEAVE_S:.0f} s"}
    fix = "end them (fuser shows who has the file open), then run the same command again"
    raise OutputBusyError(Problem("workers of a former run are still writing this output", facts, fix))


def _is_at(path: Path, handle: int) -> bool:
    return path.exists() and os.path.samestat(os.fstat(handle), path.stat())
