"""The seam to ONNX Runtime: nothing else imports it to score rows."""

from __future__ import annotations

import mmap
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batchonnx.errors import DeviceError, ModelFileError, Problem
from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.diagnose import clean, diagnose, not_a_model
from batchonnx.runtime.graph import declared_inputs, declared_outputs, dtype_name, parse_model
from batchonnx.runtime.lanes import MEMORY, Lanes, Tail
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.on_device import is_on, session_arguments
from batchonnx.runtime.placement import Placement, read_placement
from batchonnx.runtime.providers import CUDA, words_for
from batchonnx.runtime.refusal import refusal
from batchonnx.runtime.require import require_device
from batchonnx.runtime.signature import ModelSignature, TensorSpec
from batchonnx.runtime.tied import require_kind
from batchonnx.runtime.wheels import require_onnxruntime

# Errors come as exceptions; at any lower level ONNX Runtime writes them to stderr, too.
_QUIET = 4

_TREES = b"TreeEnsemble"
"""In the names of the operators whose sums depend on the number of threads, in their last digits."""

_OUT_OF_MEMORY = re.compile(
    r"bad[_ ]alloc|failed to allocate memory|out of ?memory|smaller than requested bytes"
    r"|CU\w+_STATUS_\w*ALLOC\w*_FAILED|CUBLAS failure 3\b",
    re.IGNORECASE,
)

_LOST = re.compile(
    r"CUDA (?:failure|error) (?:46|101|214|220|226|700|702|709|71[04-9]|999)\b"
    r"|uncorrectable (?:ecc|nvlink)|fallen off the bus|(?:device|gpu) (?:is |was )?(?:lost|removed)|\bxid\b",
    re.IGNORECASE,
)
"""After these errors nothing runs any more on the device, for this process at least: busy or gone (46, 101,
999), uncorrectable memory or link (214, 220, 226), a kernel that was ended (700 and following)."""


class PredictError(Exception):
    """The model failed on a batch; ONNX Runtime's own words."""


class OutOfMemory(PredictError):
    """The session couldn't allocate what a batch needs."""


class DeviceLost(DeviceError):
    """The device that the session is on is of no use any more, for this process at least."""

    @classmethod
    def of(cls, device: Device, found: str) -> DeviceLost:
        """found: ONNX Runtime's own words."""
        fix = "see dmesg and nvidia-smi; where it works, or on another one, the same command goes on"
        title = f"{words_for(device)} was lost"
        return cls(Problem(title, {"found": found}, fix))

    @property
    def found(self) -> str:
        """ONNX Runtime's own words."""
        return self.problems[0].facts["found"]


class ProcessDied(PredictError):
    """The process that ran the model was ended, by a signal or by its own exit."""


class Cancelled(Exception):
    """The call was ended by `Model.cancel`."""


class Model:
    """An ONNX model that is ready to run; safe to share between threads.

    session: ONNX Runtime's own, or what runs several of them in a row. signature: its inputs and outputs,
    as declared or inferred. threads: used by one call; 1 means that of the caller, alone. device: that the
    session was opened on. placement: what runs there; None on the CPU, where all of it does.
    """

    def __init__(
        self,
        session: Any,
        signature: ModelSignature,
        threads: int,
        device: Device = CPU,
        placement: Placement | None = None,
    ) -> None:
        import onnxruntime

        self.session, self.signature, self.threads = session, signature, threads
        self.device, self.placement = device, placement
        self.lanes = None if device.is_cpu else Lanes(session, signature, device)
        self._tails: dict[Tail, Any] = {}
        self._opening = threading.Lock()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _QUIET
        self._is_cancelled = False

    def run(
        self, output_names: Sequence[str], tensors: Mapping[str, np.ndarray], tail: Tail | None = None
    ) -> list[Any]:
        """Outputs in the order asked: arrays, or lists of dicts for sequences of maps.

        tensors: C-contiguous arrays in native byte order, not copied; text as objects or `U`. The
        arrays given back are fresh. tail: whose outputs may be asked for as well; on a device only.
        Raises PredictError where the model fails, Cancelled after `cancel`, DeviceLost.
        """
        try:
            if self.lanes is None:
                values: list[Any] = self.session.run(output_names, tensors, self._options)
                return values
            ended = (tail, self._tail_session(tail)) if tail is not None else None
            return self.lanes.run(output_names, tensors, self._options, ended)
        except Exception as error:
            # ONNX Runtime's classes derive from Exception and live in a private module.
            if self._is_cancelled:
                raise Cancelled from error
            text = clean(str(error))
            if self.lanes is not None and _LOST.search(str(error)):
                raise DeviceLost.of(self.device, text) from error
            raise (OutOfMemory if _OUT_OF_MEMORY.search(text) else PredictError)(text) from error

    def _tail_session(self, tail: Tail) -> Any:
        """On the same device; made once, for all threads."""
        with self._opening:
            if tail not in self._tails:
                self._tails[tail] = open_tail(tail, self.device)
            return self._tails[tail]

    def cancel(self) -> None:
        """End the calls in flight, and all later ones, within about 0.1 s."""
        self._is_cancelled = True
        self._options.terminate = True


def open_model(path: str, *, threads: int = 1, sha256: str | None = None, device: Device = CPU) -> Model:
    """Load a model for a device. threads: see `load_model`. sha256: refuse any other model.

    path: absolute, or a URL; files with weights are found beside it. sha256 covers them as well
    (see `ModelFile.digest`).
    Raises ModelFileError naming what is wrong with the file, DependencyError if ONNX Runtime isn't installed,
    and DeviceError if the device can't be used.
    """
    file = find_model(path)
    if sha256 is not None and file.digest != sha256.lower():
        raise not_a_model(file) or _another(file, sha256)
    return load_model(file, threads, device)


def load_model(file: ModelFile, threads: int, device: Device = CPU) -> Model:
    """Load a model that was found.

    threads: that one call may use; a model of trees gets one, since its bits would depend on it.
    Raises ModelFileError naming why ONNX Runtime can't load it, or that it was saved for another kind of CPU;
    DependencyError if ONNX Runtime isn't installed; DeviceError if the device can't be used.
    """
    threads = 1 if threads > 1 and _has_trees(file) else threads
    session = open_session(file, session_options(threads), device)
    signature = _signature(file, session)
    require_kind(file, signature.metadata)
    placement = None if device.is_cpu else read_placement(session, device)
    return Model(session, signature, threads, device, placement)


def session_options(threads: int) -> Any:
    """How every session of ours is set. threads: used by one call. Raises DependencyError."""
    require_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A pattern is kept for each shape that was ever seen; on models here it gained no time.
    options.enable_mem_pattern = False
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(file: ModelFile, options: Any, device: Device = CPU) -> Any:
    """ONNX Runtime's own session. Raises ModelFileError naming why it can't load the model; DeviceError."""
    import onnxruntime

    require_device(device)
    named = session_arguments(device, options, file.digest)
    try:
        session = onnxruntime.InferenceSession(str(file.local), options, enable_fallback=0, **named)
    except Exception as error:
        # ONNX Runtime's classes derive from Exception and live in a private module.
        said = clean(str(error))
        raise (refusal(device, said) or diagnose(file, said)) from error
    if not is_on(session, device) and (fault := refusal(device, "")) is not None:
        raise fault
    return session


def open_tail(tail: Tail, device: Device) -> Any:
    """A session of ONNX Runtime's for what comes after a model, on its device."""
    import onnxruntime

    # CUDA where the model is TensorRT's, too: an engine takes longer to build than this graph ever saves.
    is_cuda = MEMORY[device.provider] == "cuda"
    beside = Device(CUDA.name, device.index, CUDA.options, device.share) if is_cuda else CPU
    options = session_options(1)
    named = session_arguments(beside, options)
    return onnxruntime.InferenceSession(tail.graph, options, enable_fallback=0, **named)


def _has_trees(file: ModelFile) -> bool:
    """By the operators' names alone: parsing a model takes half a second."""
    if not file.size:
        return False
    with file.local.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_TREES) >= 0


def _another(file: ModelFile, sha256: str) -> ModelFileError:
    what = f"{file.path} and {', '.join(file.external)}" if file.external else file.path
    facts = {"model": what, "expected": f"sha256 {sha256}", "found": f"sha256 {file.digest}"}
    fix = "restore the model, or pin its new digest in model.sha256"
    return ModelFileError(Problem("the model isn't the one that was pinned", facts, fix))


def _signature(file: ModelFile, session: Any) -> ModelSignature:
    meta = session.get_modelmeta()
    inputs = tuple(_spec(arg) for arg in session.get_inputs())
    outputs = tuple(_spec(arg) for arg in session.get_outputs())
    if any(spec.shape == () for spec in (*inputs, *outputs)) and (proto := parse_model(file.local)):
        inputs = _with_unknown_ranks(inputs, declared_inputs(proto))
        outputs = _with_unknown_ranks(outputs, declared_outputs(proto))
    return ModelSignature(
        path=file.path,
        digest=file.digest,
        bytes=file.bytes,
        inputs=inputs,
        outputs=outputs,
        producer=meta.producer_name,
        metadata=dict(meta.custom_metadata_map),
    )


def _with_unknown_ranks(
    specs: Sequence[TensorSpec], declared: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """ONNX Runtime says [] for a scalar and for an unknown rank: only the file tells which."""
    unknown = {spec.name for spec in declared if spec.shape is None}
    return tuple(
        TensorSpec(spec.name, spec.dtype, None, spec.kind, spec.key_dtype)
        if spec.shape == () and spec.name in unknown
        else spec
        for spec in specs
    )


def _spec(arg: Any) -> TensorSpec:
    """ONNX Runtime's description of an input or output: `tensor(float)`, `seq(map(int64,tensor(float)))`."""
    if match := re.fullmatch(r"tensor\((\w+)\)", arg.type):
        return TensorSpec(arg.name, dtype_name(match[1]), tuple(arg.shape))
    if match := re.fullmatch(r"seq\(map\((\w+),tensor\((\w+)\)\)\)", arg.type):
        return TensorSpec(arg.name, dtype_name(match[2]), None, "maps", match[1])
    return TensorSpec(arg.name, arg.type, None, "other")
