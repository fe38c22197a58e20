"""Numpy to Arrow: model outputs as columns, without a copy where the memory allows it."""

from batchonnx.scoring.decode.decoder import Decoder

__all__ = ["Decoder"]
