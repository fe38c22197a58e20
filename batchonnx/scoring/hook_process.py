"""A process that runs hooks for another; see `hook_processes`."""

from __future__ import annotations

import signal

from batchonnx.runtime.child import parent
from batchonnx.scoring.hook_processes import serve

if __name__ == "__main__":
    # Ctrl-C reaches every process of a terminal: the one that began this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(parent())
