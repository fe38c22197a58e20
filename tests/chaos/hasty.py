"""The command line, with a driver on Ray that waits for nobody: minutes of a test become seconds.

python -m tests.chaos.hasty run job.yaml --engine ray
"""

from __future__ import annotations

from batchonnx.cli import main
from batchonnx.engines.ray import staff

SILENT_S, GONE_S = 2.0, 4.0
"""In place of `staff.SILENT_S` of an actor at work, and of `staff.GONE_S`."""

if __name__ == "__main__":
    staff.SILENT_S["working"] = SILENT_S
    staff.GONE_S = GONE_S
    main()
