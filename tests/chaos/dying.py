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
from itertools import count

EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
EXCHANGE = "renameat2"


def main(die_at: int, folder: str, arguments: list[str]) -> None:
    """Run the command line until it ends, or until that step."""
    steps = count(1)
    taken = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal taken
        is_exchange = event == "ctypes.dlsym" and EXCHANGE in args
        is_step = event in EVENTS and any(str(text(arg)).startswith(folder) for arg in args)
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


def text(argument: object) -> object:
    """A path as text, whatever its kind."""
    return os.fsdecode(argument) if isinstance(argument, bytes | os.PathLike) else argument


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
