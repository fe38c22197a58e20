"""Arrow to numpy: the model's inputs, without a copy where the memory allows it."""

from batchonnx.scoring.encode.encoder import Encoder

__all__ = ["Encoder"]
