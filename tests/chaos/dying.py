"""The command line, killed -9 by itself at one of its steps on the file system.

    python -m tests.chaos.dying STEP FOLDER run job.yaml     dies just before that step
    python -m tests.chaos.dying 0 FOLDER run job.yaml        lives, and says how many steps there were

A step is whatever Python's audit hooks tell of FOLDER: opening, renaming, linking or removing a
file, making or removing a folder, exchanging two. Windows of microseconds, between two renames,
say, are hit like any other; a death by the clock would hardly ever find them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
EXCHANGE = "renameat2"


def main(die_at: int, folder: str, arguments: list[str]) -> None:
    """Run the command line until it ends, or until that step."""
    steps = count(1)
    taken = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal taken
        is_exchange = event == "ctypes.dlsym" and EXCHANGE in args
        is_step = event in EVENTS and any(path.startswith(folder) for path in paths(args))
        if is_exchange or is_step:
            taken = next(steps)
            if taken == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    from batchonnx.cli import main as command_line

    sys.addaudithook(watch)
    try:
        command_line(arguments)
    finally:
        if die_at == 0:
            print(f"steps {taken}")


def paths(args: tuple[object, ...]) -> Iterator[str]:
    """What a step is done to. shutil.rmtree names what it removes by an open folder and a name in it."""
    match args:
        case (str() | bytes() as name, int() as folder) if folder >= 0:
            yield str(Path(f"/proc/self/fd/{folder}").readlink() / os.fsdecode(name))
        case _:
            yield from (os.fsdecode(arg) for arg in args if isinstance(arg, str | bytes | os.PathLike))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
