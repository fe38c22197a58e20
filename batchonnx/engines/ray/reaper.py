"""Ends a Ray that was started for one run, when the run's process is gone: by whatever, kill -9 included.

A process of its own that waits for the end of a pipe. Ray's processes are known by a variable of their
environment that nothing else has, or, where they have written their title over that, by their open logs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "BATCHONNX_RAY"
ROUNDS, ROUND_S = 50, 0.1


class Reaper:
    """Started before Ray is, and told when Ray was taken down."""

    def __init__(self, mark: str, folder: Path) -> None:
        reading, self._pipe = os.pipe()
        command = [sys.executable, "-m", __name__, str(reading), mark, str(folder), str(os.getpid())]
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(reading,),
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(reading)

    def finish(self) -> None:
        """Have it end what is left, and end itself."""
        os.close(self._pipe)
        self._process.wait()


def belonging(mark: str, folder: Path, but: int) -> Iterator[int]:
    """Processes with this mark in their environment, or a file open in the folder. but: the run itself."""
    wanted = f"{MARK}={mark}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        pid = int(place.name)
        if pid in (os.getpid(), but):
            continue
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0") or _has_open(place, folder):
                yield pid


def _has_open(place: Path, folder: Path) -> bool:
    inside = f"{folder}/"
    return any(str(file.readlink()).startswith(inside) for file in (place / "fd").iterdir())


def reap(mark: str, folder: Path, but: int) -> None:
    """End all processes that belong to it, and remove the folder."""
    for _ in range(ROUNDS):
        found = list(belonging(mark, folder, but))
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(ROUND_S)
    shutil.rmtree(folder, ignore_errors=True)


def main(pipe: int, mark: str, folder: Path, but: int) -> None:
    """Wait for the other end to be closed, then reap."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(pipe, 1):
        pass
    reap(mark, folder, but)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
