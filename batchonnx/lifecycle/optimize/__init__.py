"""Less work for the same answers: a model simplified, fused, in half precision, saved as optimized."""

from batchonnx.lifecycle.optimize.optimize import Passes, optimize

__all__ = ["Passes", "optimize"]
