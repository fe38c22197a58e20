"""batchonnx: one prediction for every row, once.

    import batchonnx
    summary = batchonnx.run("jobs/score.yaml")

The functions are those of `batchonnx.api`, imported when first used, so that the command line's
help needs neither ONNX Runtime nor pyarrow.
"""

import os
import sys
from typing import TYPE_CHECKING

if sys.platform == "linux":
    # Arrow reads this when it is first imported. Measured on 4,000,000 rows x 28 floats in a fresh
    # process, medians: jemalloc 0.67 s and 370 MB, the default (mimalloc) 0.89 s and 443 MB, since
    # it touches far more pages. Whoever has set it, or has imported pyarrow before, keeps their pool.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    # Kept for 10 s instead of 1 s: chunks come and go more slowly than that, and half of all page faults
    # were memory that had been given back in between. Not in huge pages: these are fewer faults, but where
    # a host gives a virtual machine its pages as they are touched, they took 0.1 s more than they saved.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "dirty_decay_ms:10000")

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "backfill",
    "clean",
    "convert",
    "dataset",
    "diff",
    "explain",
    "export",
    "init",
    "load_job",
    "next_ticks",
    "optimize",
    "plan",
    "publish",
    "quantize",
    "report",
    "run",
    "runs",
    "verify",
]

if TYPE_CHECKING:
    from batchonnx.api import (
        backfill,
        clean,
        convert,
        dataset,
        diff,
        explain,
        export,
        init,
        load_job,
        next_ticks,
        optimize,
        plan,
        publish,
        quantize,
        report,
        run,
        runs,
        verify,
    )


def __getattr__(name: str) -> object:
    if name in __all__:
        from batchonnx import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
