"""A process that runs hooks for another; see `hook_processes`."""

from __future__ import annotations

from batchonnx.runtime.child import parent
from batchonnx.scoring.hook_processes import serve

if __name__ == "__main__":
    serve(parent())
