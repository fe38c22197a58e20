"""A process that nobody wants any more ends.

Ray may leave an actor at work whose node has died, and a hook that never returns would outlive a run that was
killed.
"""

from __future__ import annotations

import os
import threading
import time

LOOK_S = 0.5


def end_with_parent() -> None:
    """Have this process end, as by kill -9, when the one that has started it is gone.

    Nothing comes of that where nobody ever is: in a container that the process is the first of.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)
