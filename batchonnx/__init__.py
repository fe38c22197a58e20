"""batchonnx: one prediction for every row, once."""

__version__ = "0.1.0"
