"""batchonnx: one prediction for every row, once.

    import batchonnx
    summary = batchonnx.run("jobs/score.yaml")

The functions are those of `batchonnx.api`, imported when first used, so that the command line's
help needs neither ONNX Runtime nor pyarrow.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "init", "load_job", "plan", "run"]

if TYPE_CHECKING:
    from batchonnx.api import init, load_job, plan, run


def __getattr__(name: str) -> object:
    if name in __all__:
        from batchonnx import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
