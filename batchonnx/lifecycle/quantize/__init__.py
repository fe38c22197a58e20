"""Weights, and mostly activations too, in 8 or 4 bits."""

from batchonnx.lifecycle.quantize.how import Quantization
from batchonnx.lifecycle.quantize.quantize import quantize

__all__ = ["Quantization", "quantize"]
