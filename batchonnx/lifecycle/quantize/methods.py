"""ONNX Runtime's quantizers behind one face: a prepared model, and nodes that stay as they are."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from batchonnx.lifecycle.quantize.prepare import Prepared
from batchonnx.lifecycle.whole_model import load_whole, save_whole
from batchonnx.runtime.machine import cpu_flags
from batchonnx.runtime.model_file import find_model

Quantizer = Callable[[Collection[str], Path], None]
"""Nodes that stay in float32, and where to write the quantized model."""

BLOCK = 32
"""Weights that share a scale where they have 4 or 8 bits and activations none: the smallest that is fast."""


def narrows_weights() -> bool:
    """Whether this CPU's sums of products of 8 bits may overflow, so that weights get 7: x86 without VNNI."""
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    return is_x86 and not any("vnni" in flag for flag in cpu_flags())


def dynamic(prepared: Prepared, per_channel: bool) -> Quantizer:
    """Weights in int8; activations too, by a scale that each batch has for itself."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def write(excluded: Collection[str], path: Path) -> None:
        quantize_dynamic(
            prepared.path,
            path,
            per_channel=per_channel,
            reduce_range=narrows_weights(),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(excluded),
            use_external_data_format=prepared.is_large,
            # Of what shape inference doesn't know: the outputs of fused operators.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )

    return write


def static_operators() -> list[str]:
    """Operators that are quantized where the ranges of their tensors are known."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def static(prepared: Prepared, per_channel: bool, ranges: Any) -> Quantizer:
    """Weights and activations in int8, by scales that were measured: QuantizeLinear, DequantizeLinear.

    ranges: see `measure_ranges`.
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer, update_opset_version

    # Signed activations are slow on x86 and what ARM wants.
    activations = QuantType.QInt8 if "arm" in platform.machine() or "aarch" in platform.machine() else None

    def write(excluded: Collection[str], path: Path) -> None:
        model = load_model_with_shape_infer(prepared.path)
        quantizer = QDQQuantizer(
            update_opset_version(model, QuantType.QInt8),
            per_channel,
            narrows_weights(),
            QuantType.QInt8,
            activations or QuantType.QUInt8,
            ranges,
            [],
            list(excluded),
            static_operators(),
            {"DefaultTensorType": TensorProto.FLOAT},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(path), prepared.is_large)

    return write


def weights_only(prepared: Prepared, bits: int) -> Quantizer:
    """Weights of matrix products in 4 or 8 bits, in blocks that share a scale; activations in float32."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def write(excluded: Collection[str], path: Path) -> None:
        quantizer = MatMulNBitsQuantizer(
            load_whole(find_model(str(prepared.path))),
            bits=bits,
            block_size=BLOCK,
            is_symmetric=False,
            accuracy_level=4,  # products in int8, as dynamic quantization has them
            nodes_to_exclude=list(excluded),
        )
        quantizer.process()
        save_whole(quantizer.model.model, path)

    return write
