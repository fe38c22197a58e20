"""Arrow to numpy: the model's inputs, without a copy where the memory allows it."""

from batchonnx.scoring.encode.encoder import EncodedChunk, Encoder

__all__ = ["EncodedChunk", "Encoder"]
