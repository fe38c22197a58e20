"""The execution providers that a job can ask for: where they come from, what they load, how they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batchonnx.runtime.device import PLUGIN, Device


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's execution providers.

    wheel, extra: the distribution that has it, and our name for that. libraries: what it loads, by soname;
    CUDA's with its major version left open. remedy: what brings them. options: how every session is set,
    unless the job says otherwise. known: names of its options, for advice alone: ONNX Runtime decides.
    refused: options that a job can't set -> what to do instead. is_nvidia: whether it needs NVIDIA's driver.
    """

    name: str
    wheel: str
    extra: str
    libraries: tuple[str, ...] = ()
    remedy: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    is_nvidia: bool = False


_NO_GRAPH = "leave it out: a graph replays on the addresses of the first batch, and each batch has its own"

CUDA = Provider(
    "CUDAExecutionProvider",
    "onnxruntime-gpu",
    "gpu",
    (
        "libcudart.so.{cuda}",
        "libcublasLt.so.{cuda}",
        "libcublas.so.{cuda}",
        "libcurand.so.10",
        "libcudnn.so.9",  # opened late: the first convolution would be what tells of its absence
    ),
    "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    {
        # Memory grows by what is asked for, not by powers of two: others may be on the device.
        "arena_extend_strategy": "kSameAsRequested",
        # The exhaustive search times each shape anew, and may choose otherwise the next time: other bits.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "1",
    },
    (
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "do_copy_in_default_stream",
        "enable_skip_layer_norm_strict_mode",
        "fuse_conv_bias",
        "gpu_mem_limit",
        "prefer_nhwc",
        "sdpa_kernel",
        "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms",
        "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
        "use_tf32",
    ),
    {"device_id": "say engine.device: cuda:N", "enable_cuda_graph": _NO_GRAPH},
    is_nvidia=True,
)

TENSORRT = Provider(
    "TensorrtExecutionProvider",
    "onnxruntime-gpu",
    "gpu",
    (*CUDA.libraries, "libnvinfer.so.10", "libnvonnxparser.so.10"),
    "pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu{cuda}==10.*'",
    {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"},
    (
        "trt_auxiliary_streams",
        "trt_bf16_enable",
        "trt_build_heuristics_enable",
        "trt_builder_optimization_level",
        "trt_context_memory_sharing_enable",
        "trt_dla_core",
        "trt_dla_enable",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_hw_compatible",
        "trt_fp16_enable",
        "trt_int8_calibration_table_name",
        "trt_int8_enable",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_op_types_to_exclude",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_weight_stripped_engine_enable",
    ),
    {"device_id": "say engine.device: tensorrt:N", "trt_cuda_graph_enable": _NO_GRAPH},
    is_nvidia=True,
)

OPENVINO = Provider(
    "OpenVINOExecutionProvider",
    "onnxruntime-openvino",
    "openvino",
    # Numbers as precise as the model's own, where the device could do with less.
    options={"device_type": "CPU", "precision": "ACCURACY"},
    known=(
        "cache_dir",
        "context",
        "device_type",
        "disable_dynamic_shapes",
        "enable_opencl_throttling",
        "enable_qdq_optimizer",
        "layout",
        "load_config",
        "model_priority",
        "num_of_threads",
        "num_streams",
        "precision",
        "reshape_input",
    ),
)

PROVIDERS: Mapping[str, Provider] = {"cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO}
"""By the job file's words."""


def words_for(device: Device) -> str:
    """A device by the job file's words: cpu, cuda:0, openvino, plugin:LIBRARY."""
    if device.is_cpu:
        return "cpu"
    if device.library is not None:
        return PLUGIN + Path(device.library).name
    word = next((word for word, provider in PROVIDERS.items() if provider.name == device.provider), None)
    if word is None:
        return device.provider
    return f"{word}:{device.index}" if PROVIDERS[word].is_nvidia else word


def provider_named(name: str) -> Provider | None:
    """By ONNX Runtime's name; None for one that no job asks for."""
    return next((provider for provider in PROVIDERS.values() if provider.name == name), None)
